"""What every deployment under proof offers, whether it runs as local processes or in a cluster.

The proof knows a deployment only through :class:`Stack`: where a tenant sends its telemetry, how
each reader reads, what Grafana was provisioned with, and which component is not well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from stackproof.model import Access, Backend


class Stack(Protocol):
    """A running deployment. Entering it starts what it has to start, leaving it ends that."""

    @property
    def name(self) -> str:
        """A short name for messages, such as the directory or the cluster's context."""

    @property
    def provider(self) -> str:
        """`local`, `docker`, `kind` or `cluster`."""

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
    def gateway_url(self) -> str | None:
        """Base URL of the gateway (no trailing slash), or None in a deployment without one."""

    def otlp_grpc(self, tenant: str) -> str:
        """`host:port` where this tenant's application sends OTLP over gRPC (its own Alloy)."""

    def otlp_http(self, tenant: str) -> str:
        """Base URL for OTLP over HTTP at the tenant's Alloy; ``/v1/<signal>`` is appended to it."""

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

    def health(self) -> Sequence[str]:
        """One description for each component that is dead or unhealthy ("loki: exited with
        signal 9"); empty when all is well. Cheap: it is asked several times a second.
        """

    def memory(self) -> Mapping[str, int]:
        """The most resident bytes that each component had so far; empty where nobody knows."""

    def log_errors(self) -> Sequence[str]:
        """The last errors in each component's log: where to look when data is missing.

        Empty where the logs cannot be read.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
