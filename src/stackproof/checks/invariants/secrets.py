"""Secrets: from the store, used, in nothing that can be read."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from stackproof.checks import credentials
from stackproof.helm.externals import Rendered
from stackproof.helm.manifests import Manifest, at, containers, target_secret
from stackproof.helm.uses import uses

from .base import INVARIANTS, of_each_container, of_each_object


@INVARIANTS.register
def credentials_name_their_host(rendered: Rendered) -> Iterator[str]:
    """Where a program gets a key, it is told whom to send it to: no fallback decides."""
    yield from credentials.homeless(rendered.release)


@INVARIANTS.register
@of_each_object
def secrets_are_fetched_again(m: Manifest) -> Iterator[str]:
    """What comes from an external store is fetched again and again: else rotation never arrives."""
    if m.kind in {"ExternalSecret", "ClusterExternalSecret"}:
        spec = m["spec"].get("externalSecretSpec") or m["spec"]
        interval = str(spec.get("refreshInterval", "1h"))
        if not re.search(r"[1-9]", interval):
            yield f"is fetched once and never again (refreshInterval {interval})"
        if spec.get("refreshPolicy", "Periodic") != "Periodic":
            yield f"is not fetched again when the store changes ({spec['refreshPolicy']})"


@INVARIANTS.register
def secret_keys_are_used(rendered: Rendered) -> Iterator[str]:
    """Every key of a Secret that the release makes or fetches is read by one of its pods."""
    release = rendered.release
    read = (one for m in release for one in uses(m) if one.kind == "Secret")
    used = {(one.name, one.key) for one in read}
    for m in release.of_kind("Secret", "ExternalSecret"):
        name = m.name if m.kind == "Secret" else target_secret(m)
        for key in _secret_keys(m) if (name, "") not in used else ():
            if (name, key) not in used:
                yield f"{m.source}: {m.ref}: nothing reads its key {key}"


def _secret_keys(m: Manifest) -> Iterator[str]:
    if m.kind == "Secret":
        yield from {**(m.get("data") or {}), **(m.get("stringData") or {})}
        return
    template = at(m, "spec.target.template.data")
    yield from template or (entry["secretKey"] for entry in m["spec"].get("data") or ())


#: Variables whose key is called otherwise, because their program or the key's maker says so.
_CALLED = {
    "PGPASSWORD": "postgres-password",
    "SEARXNG_SECRET": "searxng-secret-key",
    "EXTERNAL_DOCUMENT_LOADER_API_KEY": "gateway-api-key",
    "EXTERNAL_WEB_LOADER_API_KEY": "gateway-api-key",
    "WEBUI_ADMIN_PASSWORD": "admin-password",
}


@INVARIANTS.register
@of_each_container
def secrets_go_where_they_belong(container: Mapping[str, Any]) -> Iterator[str]:
    """A variable takes the key of a Secret that is called as it is: API_KEY takes api-key."""
    for variable in container.get("env") or ():
        key, name = at(variable, "valueFrom.secretKeyRef.key"), variable["name"]
        own = _CALLED.get(name, name.lower().replace("_", "-"))
        if key is not None and not f"-{own}".endswith(f"-{key}"):
            yield f"container {container['name']}: {name} is the secret {key}, not {own}"


_SECRET_NAME = re.compile(
    r"(?i)(^|[_.-])(password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key|credentials?)s?"
    r"($|[_.-](key|value|file)?$)"
)
_NO_SECRET = re.compile(r"|true|false|\d{1,4}|/[\w./-]*|\$\(?\{?\w+[)}]?.*|\{\{.*\}\}", re.DOTALL)
_KNOWN_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bsk-[A-Za-z0-9_-]{16,}|\bgh[pousr]_\w{20,}"
    r"|\bglpat-\S{16,}|\bAKIA[0-9A-Z]{16}\b|\bxox[abp]-\S{10,}|\beyJ[\w-]{10,}\.[\w-]{10,}\.|\$2[aby]\$\d\d\$\S{53}"
)
_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@\"']*:(?P<password>[^/\s@\"'$]+)@")
_SETTING = re.compile(
    r"^\s*[\"']?([\w.-]+)[\"']?\s*[:=]\s*[\"']?([^\"'\n]*?)[\"']?\s*,?$", re.MULTILINE
)
_RANDOM = re.compile(r"(?<![\w/+.-])[A-Za-z0-9+/_-]{24,}={0,2}(?![\w/+.-])")
_RANDOM_BITS = 4.0
"""Bits a character above which 24 or more of digits, lower and upper case letters are random."""


@INVARIANTS.register
@of_each_object
def no_secret_in_clear_text(m: Manifest) -> Iterator[str]:
    """Nothing outside a Secret holds a secret.

    A secret is: the value of a variable or of a setting whose name ends in password, secret, token,
    api key, private key or credentials, unless it is empty, a switch, a path or a reference; a
    password in a URL; what looks like a key of a known issuer or a bcrypt hash; or a random string.
    """
    if m.kind in {"Secret", "CustomResourceDefinition"}:
        return
    for container in containers(m):
        for variable in container.get("env") or ():
            value = str(variable.get("value") or "")
            yield from _secret_in(f"the variable {variable['name']}", variable["name"], value)
        for word in (*(container.get("command") or ()), *(container.get("args") or ())):
            flag, _, value = str(word).partition("=")
            yield from _secret_in(f"the argument {flag}", flag.lstrip("-"), value)
            yield from _secret_text("an argument", str(word))
    if m.kind == "ConfigMap":
        for key, text in (m.get("data") or {}).items():
            yield from _secret_in(f"the key {key}", key, text if "\n" not in text else "")
            for name, value in _SETTING.findall(text) if "\n" in text else ():
                yield from _secret_in(f"{name} in {key}", name, value)
            yield from _secret_text(f"the key {key}", text)


def _secret_in(where: str, name: str, value: str) -> Iterator[str]:
    if _SECRET_NAME.search(name) and not _NO_SECRET.fullmatch(value.strip()):
        yield f"{where} holds a secret in clear text"
    elif "\n" not in value:
        yield from _secret_text(where, value)


def _secret_text(where: str, text: str) -> Iterator[str]:
    if _KNOWN_SECRET.search(text):
        yield f"{where} holds a key or a hash in clear text"
    for found in _IN_URL.finditer(text):
        if not _NO_SECRET.fullmatch(found["password"]):
            yield f"{where} holds a password in a URL"
    if any(_is_random(word) for word in _RANDOM.findall(text)):
        yield f"{where} holds a random string, as secrets are"


def _is_random(word: str) -> bool:
    if not (re.search(r"\d", word) and re.search(r"[a-z]", word) and re.search(r"[A-Z]", word)):
        return False
    counts = Counter(word).values()
    return -sum(n / len(word) * math.log2(n / len(word)) for n in counts) > _RANDOM_BITS
