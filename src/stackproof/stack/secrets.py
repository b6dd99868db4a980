"""The Secrets that a stack's pods ask for, made as the External Secrets Operator makes them.

What the operator would read from the external store is a random value here, one for each remote
key. So two ExternalSecrets that mean the same password must name the same key, as in a cluster.
Templates are executed by Go, with the operator's own functions (tools/render/secret.go).
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from stackproof.errors import StackproofError
from stackproof.helm import renderer
from stackproof.helm.manifests import Manifest


class SecretStore:
    """Stands for the external store: a random value for each key that is asked for."""

    def __init__(self) -> None:
        self._values: dict[str, str | None] = {}

    def read(self, key: str) -> str:
        """Return the value of a remote key; the same one each time.

        Raises:
            StackproofError: The store has no such key.
        """
        value = self._values.setdefault(key, secrets.token_hex(16))
        if value is None:
            raise StackproofError(f"could not get secret {key}: it does not exist")
        return value

    def write(self, key: str, value: str | None) -> None:
        """Give a remote key a value; None takes the key away."""
        self._values[key] = value


def materialize(
    manifests: Iterable[Manifest], store: SecretStore, failed: dict[str, str] | None = None
) -> dict[str, dict[str, str]]:
    """Return every Secret that these objects make: name to key to value.

    Args:
        manifests: The objects.
        store: What ExternalSecrets fetch from.
        failed: Gets the reason of each ExternalSecret that makes no Secret, by name.

    Raises:
        StackproofError: An ExternalSecret makes no Secret, and `failed` is not given.
    """
    made: dict[str, dict[str, str]] = {}
    for manifest in manifests:
        if manifest.kind == "Secret":
            made.setdefault(manifest.name, {}).update(_plain(manifest))
        elif manifest.kind == "ExternalSecret":
            try:
                synced = _synced(manifest, store)
            except StackproofError as error:
                if failed is None:
                    raise StackproofError(error.what, where=manifest.ref) from error
                failed[manifest.name] = error.what
            else:
                made.setdefault(_target(manifest), {}).update(synced)
    return made


def unchanged(before: Iterable[Manifest], after: Iterable[Manifest]) -> frozenset[str]:
    """Return the Secrets that both make from the same objects: nobody makes them anew."""
    old = set(before)
    same = [each for each in after if each in old]
    return frozenset(
        _target(each) if each.kind == "ExternalSecret" else each.name
        for each in same
        if each.kind in {"ExternalSecret", "Secret"}
    )


def synced_values(manifests: Iterable[Manifest], secret: str, store: SecretStore) -> dict[str, str]:
    """Return the values, by `secretKey`, from which one ExternalSecret makes its Secret."""
    return {
        key: value
        for manifest in manifests
        if manifest.kind == "ExternalSecret" and _target(manifest) == secret
        for key, value in _fetched(manifest, store).items()
    }


def _target(external: Manifest) -> str:
    """Return the name of the Secret that an ExternalSecret makes."""
    return str(external["spec"].get("target", {}).get("name") or external.name)


def _plain(secret: Manifest) -> dict[str, str]:
    encoded: Mapping[str, str] = secret.get("data") or {}
    return {
        **{key: base64.b64decode(value).decode() for key, value in encoded.items()},
        **(secret.get("stringData") or {}),
    }


def _fetched(external: Manifest, store: SecretStore) -> dict[str, str]:
    data = external["spec"].get("data") or ()
    return {entry["secretKey"]: store.read(_remote_key(entry["remoteRef"])) for entry in data}


def _synced(external: Manifest, store: SecretStore) -> dict[str, str]:
    data = _fetched(external, store)
    templates = (external["spec"].get("target", {}).get("template") or {}).get("data")
    if not templates:
        return data
    fetched = {key: value.encode() for key, value in data.items()}
    made = renderer.renderer().secret(templates, fetched)
    return {key: value.decode() for key, value in made.items()}


def _remote_key(ref: Mapping[str, Any]) -> str:
    return f"{ref['key']}#{ref['property']}" if ref.get("property") else str(ref["key"])
