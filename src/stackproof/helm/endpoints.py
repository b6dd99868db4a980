"""Find the addresses of cluster Services in text: environment values and config files."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*"
_URL = re.compile(
    rf"\b([a-z][a-z0-9+.-]*)://(?:[^\s/@\"'<>|]*@)?({_HOST})\.?(?::(\d+))?(?=[^\w.:-]|$)"
)
# host:port without a scheme: in the middle of a text only where the name can be nothing else.
_IN_CLUSTER = re.compile(
    rf"(?<![\w./@-])({_LABEL}\.{_LABEL}\.svc(?:\.cluster\.local)?):(\d+)(?=[^\w.:-]|$)"
)
_ALONE = re.compile(rf"({_HOST}):(\d+)")
_SCALAR = re.compile(rf"[:=]\s+([\"']?)({_LABEL}(?:\.{_LABEL})?):(\d{{2,5}})\1\s*,?$", re.MULTILINE)
_COMMENT = re.compile(r"^\s*(?:#|//).*$", re.MULTILINE)
_TEMPLATE = re.compile(r"\{\{.*?\}\}")

_DEFAULT_PORTS = {
    "http": 80,
    "https": 443,
    "ws": 80,
    "wss": 443,
    "postgres": 5432,
    "postgresql": 5432,
    "redis": 6379,
    "rediss": 6379,
}
_LOOPBACK = {"localhost", "localhost.localdomain"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that looks like that of a Service."""

    host: str
    port: int | None
    """None where the text names none and the scheme has no default."""

    def service(self, namespace: str, namespaces: Collection[str]) -> tuple[str, str] | None:
        """Return (namespace, name) of the Service, None if the address is outside the cluster.

        Args:
            namespace: The namespace of whoever uses the address.
            namespaces: Namespaces that exist: only they make `name.namespace` a Service.
        """
        labels = self.host.removesuffix(".cluster.local").split(".")
        if len(labels) == 1:
            return namespace, labels[0]
        if len(labels) == 3 and labels[2] == "svc":
            return labels[1], labels[0]
        if len(labels) == 2 and labels[1] in namespaces:
            return labels[1], labels[0]
        return None


def in_text(text: str) -> set[Endpoint]:
    """Return the endpoints in a config file; whole-line comments do not count."""
    text = _TEMPLATE.sub("x", _COMMENT.sub("", text))
    found = {_endpoint(host, port, scheme) for scheme, host, port in _URL.findall(text)}
    found |= {_endpoint(host, port) for host, port in _IN_CLUSTER.findall(text)}
    found |= {_endpoint(host, port) for _, host, port in _SCALAR.findall(text)}
    return {endpoint for endpoint in found if _named(endpoint.host)}


def in_value(text: str) -> set[Endpoint]:
    """Return the endpoints in an environment value: URLs, or a list of host:port."""
    found = in_text(text)
    for part in text.split(","):
        alone = _ALONE.fullmatch(part.strip())
        if alone and _named(alone[1]):
            found.add(_endpoint(alone[1], alone[2]))
    return found


def _endpoint(host: str, port: str, scheme: str = "") -> Endpoint:
    return Endpoint(host, int(port) if port else _DEFAULT_PORTS.get(scheme))


def _named(host: str) -> bool:
    """Tell names from IP addresses and from this very machine."""
    return host not in _LOOPBACK and not re.fullmatch(r"[\d.]+", host)
