"""The words that everything here is told in: signals, the backends that keep them, and access."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

#: The header by which Mimir, Loki and Tempo tell tenants apart.
TENANT_HEADER = "X-Scope-OrgID"

#: Under which the stack keeps metrics of itself (charts/lgtm, templates/monitor.yaml).
STACK_TENANT = "observability"

#: What the backends call a tenant that nobody named; no tenant may have such a name.
FALLBACK_TENANTS = ("anonymous", "fake", "single-tenant", "")


class Signal(StrEnum):
    """The three kinds of telemetry; each is kept by one backend."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


class Backend(StrEnum):
    """The three stores."""

    TEMPO = "tempo"
    MIMIR = "mimir"
    LOKI = "loki"


@dataclass(frozen=True, slots=True)
class Read:
    """Where a backend's API is: behind the gateway, or at its own Service.

    Args:
        prefix: Path behind the gateway.
        port: Port of its Service.
        direct: Path there.
    """

    prefix: str
    port: int
    direct: str


READS: Mapping[Backend, Read] = {
    Backend.MIMIR: Read(prefix="/prometheus", port=9009, direct="/prometheus"),
    Backend.LOKI: Read(prefix="", port=3100, direct=""),
    Backend.TEMPO: Read(prefix="/tempo", port=3200, direct=""),
}


@dataclass(frozen=True, slots=True)
class Access:
    """How one reader reaches the backends.

    `urls` are what one would enter as the URL of a Grafana data source: the gateway's
    ``…/prometheus`` for Mimir, ``…`` for Loki, ``…/tempo`` for Tempo. `headers` carries the tenant
    where no gateway derives it from the credential, and the admin's explicit list of tenants.
    """

    name: str
    urls: Mapping[Backend, str]
    auth: tuple[str, str] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
