"""The vocabulary of the package: signals, backends, entry points, and how a reader gets access."""

from __future__ import annotations

import shlex
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


BACKEND_OF: Mapping[Signal, Backend] = {
    Signal.TRACES: Backend.TEMPO,
    Signal.METRICS: Backend.MIMIR,
    Signal.LOGS: Backend.LOKI,
}
SIGNAL_OF: Mapping[Backend, Signal] = {backend: signal for signal, backend in BACKEND_OF.items()}


class EntryPoint(StrEnum):
    """Where telemetry, or an attack, is sent."""

    ALLOY_GRPC = "alloy-grpc"
    ALLOY_HTTP = "alloy-http"
    GATEWAY = "gateway"
    BACKEND = "backend"
    """Past the gateway, as only an attacker in the cluster could."""
    TARGETS = "targets"
    """Where each tenant's own target says."""


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
class Tls:
    """Files of a TLS connection (PEM): whom it trusts, and the client's own certificate."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """How one reader reaches the backends.

    `urls` are what one would enter as the URL of a Grafana data source: the gateway's
    ``…/prometheus`` for Mimir, ``…`` for Loki, ``…/tempo`` for Tempo. `headers` carries the tenant
    where no gateway derives it from the credential, and the admin's explicit list of tenants.
    `secrets` are headers that no report may show, such as a bearer token. `tenant_header` is the
    header by which the deployment tells tenants apart.
    """

    name: str
    urls: Mapping[Backend, str]
    auth: tuple[str, str] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: Tls = Tls()
    tenant_header: str = TENANT_HEADER

    @property
    def anonymous(self) -> bool:
        """Whether nothing but a header says who asks."""
        return not (self.auth or self.secrets or self.tls.cert)

    def curl(self) -> str:
        """Return curl's options for the credential; the shell puts the secrets in."""
        words = [f'--user "{self.auth[0]}:$PASSWORD"'] if self.auth else []
        for name, value in self.secrets.items():
            bearer = value.startswith("Bearer ")
            shown = "Bearer $TOKEN" if bearer else f"${name.upper().replace('-', '_')}"
            words.append(f'--header "{name}: {shown}"')
        files = (("cacert", self.tls.ca), ("cert", self.tls.cert), ("key", self.tls.key))
        words += [f"--{option} {shlex.quote(file)}" for option, file in files if file]
        return " ".join(words)
