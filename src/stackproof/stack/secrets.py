"""The Secrets that a stack's pods ask for, made as the External Secrets Operator makes them.

What the operator would read from the external store is a random value here, one for each remote
key. So two ExternalSecrets that mean the same password must name the same key, as in a cluster.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import bcrypt

from stackproof.errors import StackproofError
from stackproof.manifests import Manifest

# The lowest cost there is: these passwords are random, and live for minutes.
_BCRYPT_ROUNDS = 4
_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")
_KNOWN_ACTION = re.compile(r'(?:index \. "(?P<index>[^"]+)"|\.(?P<field>\w+))(?P<hash> \| bcrypt)?')


class SecretStore:
    """Stands for the external store: a random value for each key that is asked for."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def read(self, key: str) -> str:
        """Return the value of a remote key; the same one each time."""
        return self._values.setdefault(key, secrets.token_hex(16))


def materialize(manifests: Iterable[Manifest], store: SecretStore) -> dict[str, dict[str, str]]:
    """Return every Secret that these objects make: name to key to value.

    Raises:
        StackproofError: An ExternalSecret's template says more than is understood here.
    """
    made: dict[str, dict[str, str]] = {}
    for manifest in manifests:
        if manifest.kind == "Secret":
            made.setdefault(manifest.name, {}).update(_plain(manifest))
        elif manifest.kind == "ExternalSecret":
            name = manifest["spec"].get("target", {}).get("name") or manifest.name
            made.setdefault(name, {}).update(_synced(manifest, store))
    return made


def synced_values(manifests: Iterable[Manifest], secret: str, store: SecretStore) -> dict[str, str]:
    """Return the values, by `secretKey`, from which one ExternalSecret makes its Secret."""
    return {
        entry["secretKey"]: store.read(_remote_key(entry["remoteRef"]))
        for manifest in manifests
        if manifest.kind == "ExternalSecret"
        and (manifest["spec"].get("target", {}).get("name") or manifest.name) == secret
        for entry in manifest["spec"].get("data") or ()
    }


def _plain(secret: Manifest) -> dict[str, str]:
    encoded: Mapping[str, str] = secret.get("data") or {}
    return {
        **{key: base64.b64decode(value).decode() for key, value in encoded.items()},
        **(secret.get("stringData") or {}),
    }


def _synced(external: Manifest, store: SecretStore) -> dict[str, str]:
    spec = external["spec"]
    data = {
        entry["secretKey"]: store.read(_remote_key(entry["remoteRef"]))
        for entry in spec.get("data") or ()
    }
    template = (spec.get("target", {}).get("template") or {}).get("data")
    if not template:
        return data
    return {key: _evaluate(text, data, where=external.ref) for key, text in template.items()}


def _remote_key(ref: Mapping[str, Any]) -> str:
    return f"{ref['key']}#{ref['property']}" if ref.get("property") else str(ref["key"])


def _evaluate(template: str, data: Mapping[str, str], *, where: str) -> str:
    """Evaluate what our charts use of the operator's templates: a value, or its bcrypt hash."""

    def value(action: re.Match[str]) -> str:
        known = _KNOWN_ACTION.fullmatch(action[1])
        name = str(known and (known["index"] or known["field"]))
        if not known or name not in data:
            raise StackproofError(
                f"the template's {action[0]} is not understood here",
                where=where,
                todo='Use {{ index . "KEY" }} or {{ index . "KEY" | bcrypt }} of a key under data.',
            )
        plain = data[name]
        if not known["hash"]:
            return plain
        return bcrypt.hashpw(plain.encode(), bcrypt.gensalt(_BCRYPT_ROUNDS)).decode()

    return _ACTION.sub(value, template)
