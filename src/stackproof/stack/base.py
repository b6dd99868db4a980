"""What every deployment under proof offers, whether it runs as local processes or in a cluster.

The proof knows a deployment only through :class:`Stack`: where a tenant sends its telemetry, how
each reader reads, what Grafana was provisioned with, and which component is not well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from stackproof.backends import Client, ReadApi, grafana
from stackproof.backends.grafana import DataSource
from stackproof.errors import StackproofError
from stackproof.model import READS, TENANT_HEADER, Access, Backend, EntryPoint
from stackproof.otlp import senders


class Stack(Protocol):
    """A running deployment. Entering it starts what it has to start, leaving it ends that."""

    @property
    def name(self) -> str:
        """A short name for messages, such as the directory or the cluster's context."""

    @property
    def provider(self) -> str:
        """`local`, `docker`, `kind`, `cluster` (behind a gateway's URL as well) or `targets`."""

    @property
    def tenants(self) -> tuple[str, ...]:
        """The tenants that are deployed, in the registry's order."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Version of each program or component that runs, as far as the stack knows it."""

    @property
    def disposable(self) -> bool:
        """Whether all data is thrown away afterwards, so that destructive tests may run."""

    @property
    def entry_points(self) -> tuple[EntryPoint, ...]:
        """Where telemetry can be sent; a proof sends to the first unless it is told another."""

    @property
    def unguarded(self) -> str:
        """Why no request is authenticated, so that none can be refused; empty where all are."""

    @property
    def may_ignore_headers(self) -> bool:
        """Whether a header that names another tenant may be without effect, instead of refused."""

    @property
    def gateway_url(self) -> str | None:
        """Base URL of the gateway (no trailing slash), or None in a deployment without one."""

    def otlp_grpc(self, tenant: str) -> str:
        """`host:port` where this tenant's application sends OTLP over gRPC (its own Alloy)."""

    def otlp_http(self, tenant: str) -> str:
        """Base URL for OTLP over HTTP at the tenant's Alloy; ``/v1/<signal>`` is appended to it."""

    def sender(self, tenant: str, entry_point: EntryPoint, client: Client) -> senders.Sender:
        """Return what sends this tenant's telemetry; HTTP shares the client's pool.

        Raises:
            StackproofError: The deployment has no such entry point.
        """

    def not_compared(self, api: ReadApi) -> str:
        """Return why a read API cannot be asked here, or an empty string."""

    def reader(self, tenant: str) -> Access:
        """How this tenant reads its own telemetry."""

    def admin_reader(self, tenants: Sequence[str]) -> Access:
        """How the admin reads these tenants at once: `a|b|c` in the tenant header."""

    def backend_url(self, backend: Backend) -> str:
        """Base URL of a backend, past the gateway, in the form of :attr:`Access.urls`.

        Only where the stack is disposable; a StackproofError elsewhere.
        """

    def data_sources(self) -> Sequence[Mapping[str, object]]:
        """The data sources that Grafana is provisioned with, as :func:`provisioning.read` gives
        them: variables expanded, hosts reachable from here.
        """

    def views(self) -> Sequence[DataSource]:
        """What shows several tenants at once: Grafana's data sources, an administrator."""

    def health(self) -> Sequence[str]:
        """One description for each component that is dead or unhealthy ("loki: exited with
        signal 9"); empty when all is well. Cheap: it is asked several times a second.
        """

    def memory(self) -> Mapping[str, int]:
        """The most resident bytes that each component had so far; empty where nobody knows."""

    def over_memory(self) -> Mapping[str, str]:
        """A description of each component that has had more memory than its pod gets.

        Empty where Kubernetes itself sees to it: there such a component dies.
        """

    def log_errors(self) -> Sequence[str]:
        """The last errors in each component's log: where to look when data is missing.

        Empty where the logs cannot be read.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class _WithPasswords(Stack, Protocol):
    """What a deployment of our charts knows besides."""

    def password(self, user: str) -> str:
        """Return the password of a tenant, or of `admin`, at the gateway."""


class FromCharts:
    """What all deployments of this repository's charts have in common."""

    entry_points: tuple[EntryPoint, ...] = (
        EntryPoint.ALLOY_GRPC,
        EntryPoint.ALLOY_HTTP,
        EntryPoint.GATEWAY,
    )
    #: The gateway refuses them, so that a mistake is noticed by whoever makes it.
    may_ignore_headers = False

    @property
    def unguarded(self: Stack) -> str:
        """See :attr:`Stack.unguarded`."""
        return "" if self.gateway_url else "the deployment has no gateway"

    def sender(self: Stack, tenant: str, entry_point: EntryPoint, client: Client) -> senders.Sender:
        """See :meth:`Stack.sender`."""
        match entry_point:
            case EntryPoint.ALLOY_GRPC:
                return senders.GrpcSender(self.otlp_grpc(tenant))
            case EntryPoint.ALLOY_HTTP:
                return senders.HttpSender(self.otlp_http(tenant), pool=client.pool)
        if self.gateway_url is None:
            raise StackproofError(
                "the deployment has no gateway to send through",
                where=f"stack {self.name}",
                todo="Send through the tenants' Alloys.",
            )
        access = self.reader(tenant)
        return senders.HttpSender(
            f"{self.gateway_url}/otlp", auth=access.auth, headers=access.headers, pool=client.pool
        )

    def not_compared(self, api: ReadApi) -> str:  # noqa: ARG002
        """Return an empty string: the backends have all read APIs."""
        return ""

    def views(self: Stack) -> Sequence[DataSource]:
        """Return Grafana's data sources."""
        return grafana.sources(self.data_sources())

    def reader(self: _WithPasswords, tenant: str) -> Access:
        """The tenant, with its own password."""
        return _access(self, tenant, tenant, {})

    def admin_reader(self: _WithPasswords, tenants: Sequence[str]) -> Access:
        """The administrator, asking for these tenants by name."""
        wanted = "|".join(tenants)
        return _access(self, "admin", wanted, {TENANT_HEADER: wanted})


class FromOutside:
    """The parts of a `Stack` that are unknown where a deployment is known by its URLs only."""

    disposable = False

    def data_sources(self) -> Sequence[Mapping[str, object]]:
        """None: Grafana is not reached."""
        return ()

    def health(self) -> Sequence[str]:
        """Nothing: what is not well shows as missing telemetry."""
        return ()

    def memory(self) -> Mapping[str, int]:
        """Nothing: it is not measured here."""
        return {}

    def over_memory(self) -> Mapping[str, str]:
        """Nothing: it is not measured here."""
        return {}

    def log_errors(self) -> Sequence[str]:
        """None: there are no logs to read."""
        return ()

    def __exit__(self, *_: object) -> None:
        """Nothing was started."""


#: An error in logfmt or JSON.
_LOG_ERROR = re.compile(r'level=error|"level":"error"')
_MOST_LOG_ERRORS = 4


def last_errors(log: str) -> list[str]:
    """Return the last few lines of a component's log that are errors."""
    return [line for line in log.splitlines() if _LOG_ERROR.search(line)][-_MOST_LOG_ERRORS:]


def _access(stack: _WithPasswords, user: str, tenant: str, headers: Mapping[str, str]) -> Access:
    """Return how somebody reads: through the gateway, else as a tenant that the header names."""
    if stack.gateway_url is None:
        urls = {backend: stack.backend_url(backend) for backend in Backend}
        return Access(user, urls, headers={TENANT_HEADER: tenant})
    urls = {backend: f"{stack.gateway_url}{read.prefix}" for backend, read in READS.items()}
    return Access(user, urls, auth=(user, stack.password(user)), headers=headers)
