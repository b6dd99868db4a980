"""Ask the backends as Grafana would: through each provisioned data source, exactly as it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stackproof.errors import StackproofError
from stackproof.model import STACK_TENANT, TENANT_HEADER, Access, Backend

#: Grafana's plugin ids of the three backends.
BACKENDS: Mapping[str, Backend] = {
    "prometheus": Backend.MIMIR,
    "loki": Backend.LOKI,
    "tempo": Backend.TEMPO,
}


@dataclass(frozen=True, slots=True)
class DataSource:
    """One provisioned data source: its uid, its backend, and how Grafana's proxy asks it."""

    uid: str
    name: str
    backend: Backend
    access: Access

    @property
    def header(self) -> str:
        """The tenant header that it sends, or an empty string."""
        return self.access.headers.get(TENANT_HEADER, "")

    def expected(self, tenants: Sequence[str]) -> frozenset[str]:
        """Return whose data it has to show: one tenant's if it names exactly that, else all.

        A list or anything else in the header is meant to be everybody: what it really shows is for
        the backend to say (`soev|enterprise-.*` is no pattern but a tenant of that name). The
        stack's own metrics are no tenant's: that source must show nobody's.
        """
        if self.header == STACK_TENANT:
            return frozenset()
        return frozenset({self.header}) if self.header in tenants else frozenset(tenants)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _headers(record: Mapping[str, object]) -> dict[str, str]:
    """Pair httpHeaderName1 with httpHeaderValue1, and so on until a name is missing."""
    names, values = _mapping(record.get("jsonData")), _mapping(record.get("secureJsonData"))
    headers: dict[str, str] = {}
    number = 1
    while name := _text(names.get(f"httpHeaderName{number}")):
        headers[name] = _text(values.get(f"httpHeaderValue{number}"))
        number += 1
    return headers


def source(record: Mapping[str, object]) -> DataSource:
    """Read one expanded record. Only its `secure` password counts, as in Grafana."""
    uid, url = _text(record.get("uid")), _text(record.get("url")).rstrip("/")
    kind = _text(record.get("type"))
    if not uid or not url or kind not in BACKENDS:
        raise StackproofError(
            f"data source {record.get('name')!r} has uid {uid!r}, type {kind!r} and url {url!r}",
            where="Grafana provisioning",
            todo="give it a uid, a URL and one of the types " + ", ".join(BACKENDS),
        )
    auth = None
    if record.get("basicAuth") is True:
        password = _text(_mapping(record.get("secureJsonData")).get("basicAuthPassword"))
        auth = (_text(record.get("basicAuthUser")), password)
    backend = BACKENDS[kind]
    access = Access(f"Grafana {uid}", {backend: url}, auth, _headers(record))
    return DataSource(uid, _text(record.get("name")), backend, access)


def sources(records: Sequence[Mapping[str, object]]) -> tuple[DataSource, ...]:
    """Read all expanded records of the three backends; other types are none of our business."""
    return tuple(source(record) for record in records if record.get("type") in BACKENDS)
