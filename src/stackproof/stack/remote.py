"""A deployment of which one knows its gateway and some tenants' passwords, and nothing else.

That is what a canary in the cluster has. The passwords are in the environment,
STACKPROOF_PASSWORD_TENANT (upper case, `-` is `_`); telemetry goes in through the gateway.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Self
from urllib.parse import urlsplit

import urllib3

from stackproof.backends import Client
from stackproof.errors import StackproofError, UsageError
from stackproof.model import Backend, EntryPoint

from .base import FromCharts, FromOutside

_PREFLIGHT_S = 5.0
_PREFIX = "STACKPROOF_PASSWORD_"


def variable(tenant: str) -> str:
    """Return the variable that a tenant's password is in."""
    return f"{_PREFIX}{tenant.upper().replace('-', '_')}"


def preflight(url: str, pool: urllib3.PoolManager) -> None:
    """Look whether anybody is there. Any answer will do, a refusal as well.

    Raises:
        StackproofError: Nothing answers at the URL.
    """
    try:
        answer = pool.request(
            "GET", url, timeout=_PREFLIGHT_S, retries=False, redirect=False, preload_content=False
        )
        answer.close()
        answer.release_conn()
    except urllib3.exceptions.HTTPError as error:
        raise StackproofError(
            f"nothing answers there ({error}); nothing was sent",
            where=url,
            todo="Is the URL right, and can it be reached from here?",
        ) from error


class RemoteStack(FromOutside, FromCharts):
    """A `Stack` behind a gateway's URL.

    Raises:
        UsageError: The URL is none, or a password is missing.
    """

    provider = "cluster"
    entry_points = (EntryPoint.GATEWAY,)

    def __init__(
        self, gateway_url: str, tenants: Sequence[str], environment: Mapping[str, str] = os.environ
    ) -> None:
        if urlsplit(gateway_url).scheme not in {"http", "https"}:
            raise UsageError(
                f"{gateway_url!r} is not a URL", where="--gateway-url", todo="Say http://HOST:PORT."
            )
        missing = [name for name in map(variable, tenants) if name not in environment]
        if missing:
            raise UsageError(
                f"not set: {', '.join(missing)}",
                where="environment",
                todo="Each tenant's own password at the gateway is needed.",
            )
        self.gateway_url: str | None = gateway_url.rstrip("/")
        self.tenants = tuple(tenants)
        self._passwords = {tenant: environment[variable(tenant)] for tenant in tenants}

    @property
    def name(self) -> str:
        """The gateway's URL."""
        return str(self.gateway_url)

    @property
    def versions(self) -> Mapping[str, str]:
        """Nothing: the gateway does not say."""
        return {}

    def otlp_grpc(self, tenant: str) -> str:
        """Refuse: telemetry goes in through the gateway."""
        raise self._gateway_only(tenant)

    otlp_http = otlp_grpc

    def _gateway_only(self, what: str) -> StackproofError:
        return StackproofError(
            f"{what} is reached through the gateway only",
            where=self.name,
            todo="Send through the gateway: it has no Alloy.",
        )

    def password(self, user: str) -> str:
        """Return a tenant's password; the administrator's is looked for like one of those."""
        if user == "admin":
            return os.environ.get(variable("admin"), "")
        if user not in self._passwords:
            raise StackproofError(
                f"the password of {user} is not known",
                where=self.name,
                todo=f"There are: {', '.join(self.tenants)}.",
            )
        return self._passwords[user]

    def backend_url(self, backend: Backend) -> str:
        """Refuse: behind the gateway is somebody else's data."""
        raise self._gateway_only(backend)

    def __enter__(self) -> Self:
        """Look whether anybody is there, before anything is sent."""
        with Client() as client:
            preflight(self.name, client.pool)
        return self
