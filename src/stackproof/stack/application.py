"""A tenant's real application, as its rendered Deployment and ConfigMap have it run.

Its environment is that of the pod, by the same five rules as any other's (`pod`). Replaced besides
is what does not run here: the database becomes SQLite, the vector store one that is not asked, and
the provider of models is the application itself, so that it has somebody to call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Self

import urllib3

from stackproof.errors import StackproofError
from stackproof.helm.renderer import Values
from stackproof.toolchain import openwebui
from stackproof.waiting import until

from .local import LocalStack
from .pod import LOOPBACK
from .ports import PortLeases
from .process import Process

_READY_SECONDS = 180.0

#: `python -m uvicorn`, which looks for garbage less often: a quarter off a start, which imports
#: thousands of modules.
_UVICORN = "import gc; gc.set_threshold(50_000, 50, 100); from uvicorn.main import main; main()"

#: Its exporters' errors, and those of the gRPC library below them.
_LOG_ERROR = re.compile(r"(?:opentelemetry\.exporter\S+ - |ssl_transport_security\S+ )(.*)")


class Application:
    """One replica. Entering starts it, in the main thread; `wait` until it can be asked."""

    def __init__(
        self, stack: LocalStack, tenant: str, *, replica: int = 0, values: Sequence[Values] = ()
    ) -> None:
        self.tenant = tenant
        self.pod, rendered = stack.application(tenant, replica, values)
        self._ports = PortLeases()
        self._port = self._ports.lease()
        self._pool = urllib3.PoolManager(timeout=20, retries=False)
        data = self.pod.directory / "data"
        self.environment: Mapping[str, str] = {
            **rendered,
            **openwebui.HERE,
            "DATA_DIR": str(data),
            "DATABASE_URL": f"sqlite:///{data}/webui.db",
            "OPENAI_API_BASE_URL": self.url,
        }
        self._process = Process(
            f"{self.pod.name}",
            [
                *(str(openwebui.find()), "-c", _UVICORN, "open_webui.main:app"),
                *("--host", LOOPBACK, "--port", str(self._port)),
            ],
            self.environment,
            self.pod.directory,
            self.pod.directory / "log",
        )

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def attributes(self) -> Mapping[str, str]:
        """What its telemetry must say of itself: the resource's attributes."""
        return {
            "service.name": self.environment["OTEL_SERVICE_NAME"],
            "service.namespace": self.pod.namespace,
            "service.instance.id": self.pod.pod_name,
            "tenant.id": self.tenant,
        }

    def wait(self) -> None:
        """Wait until its readiness probe succeeds.

        Raises:
            StackproofError: It ended before, or the time is up.
        """
        path = self.pod.container["readinessProbe"]["httpGet"]["path"]
        answered, ended = until(
            lambda: (self.ask("GET", path)[0], self._process.ended()),
            lambda seen: seen[0] == 200 or seen[1],
            within_s=_READY_SECONDS,
        )
        if answered != 200:
            raise StackproofError(
                f"{ended or f'not ready after {_READY_SECONDS:.0f} s'}; "
                f"{path} last answered {answered}\n{self._process.tail()}",
                where=self._process.name,
            )

    def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int | None, str]:
        """Send a request, as a user's browser does; return status (None: no answer) and body."""
        try:
            answer = self._pool.request(
                method, f"{self.url}{path}", json=body, headers=dict(headers or {})
            )
        except urllib3.exceptions.HTTPError as error:
            return None, str(error)
        return answer.status, answer.data.decode(errors="replace")

    def log_errors(self) -> list[str]:
        """Return what it has printed of telemetry that it could not send, each sentence once."""
        text = self._process.log.read_text(errors="replace")
        found = (match[1] for match in _LOG_ERROR.finditer(text))
        return list(dict.fromkeys(found))

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._pool.clear()
        self._ports.release()
