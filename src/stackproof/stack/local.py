"""The deployment as child processes on loopback: no cluster, no Docker, no root.

The real Mimir, Loki, Tempo, Alloy and gateway run from the bytes that the charts render, in a
directory that is thrown away. What a cluster alone can run (Grafana, the application, its data
stores) is left out; Grafana's data sources are used by asking as they are provisioned.
"""

from __future__ import annotations

import contextlib
import http.client
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.helm.manifests import Release, containers, memory_limit
from stackproof.helm.renderer import Values
from stackproof.model import READS, Backend
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE
from stackproof.toolchain import programs
from stackproof.toolchain.programs import Program
from stackproof.waiting import until

from . import provisioning
from .base import FromCharts, last_errors
from .pod import LOOPBACK, Pod, ServicePort, pods, service_ports
from .ports import PortLeases
from .process import Process, ProgramProcess
from .scratch import Scratch
from .secrets import SecretStore, materialize, synced_values

#: What a laptop wants sooner than a cluster does, with few tenants: the configurations name the
#: interval, and Go looks for garbage less often, which takes a sixth off the programs' work.
LAPTOP = {"COLLECTION_INTERVAL": "1s", "GOGC": "400"}
#: With many tenants Tempo would do little else, and no proof reads what it makes of spans; and the
#: pods' limits, which are not enough for so many, do not hold here.
_CROWD = {"COLLECTION_INTERVAL": "60s", "GOMEMLIMIT": "off"}

#: A laptop has no Kubernetes API to read pod logs from.
_NO_KUBERNETES_API: Mapping[str, object] = {"alloy": {"podLogs": {"enabled": False}}}

#: Nor nodes whose volumes are measured, or an operator.
_NOTHING_AROUND: Mapping[str, object] = {
    "monitor": {part: {"enabled": False} for part in ("volumes", "logs", "externalSecrets")}
}

_READY_SECONDS = 90.0
#: What a pod has to end, where nothing else is said.
GRACE_SECONDS = 30.0

_ATTEMPTS = 3
_READY = "200"


class LocalStack(FromCharts):
    """A `Stack` of local processes. Enter it in the main thread; leaving it ends everything.

    Args:
        deployment: What to run.
        keep: Leave the directory (configurations, logs, data) when it ends.
        alloys: Run each tenant's Alloy. Without them a tenant writes straight to the gateway, with
            the password that its Alloy would have: for more tenants than a machine has room for.
        monitor: Run what scrapes the stack itself; no proof needs it.
    """

    provider = "local"
    disposable = True

    def __init__(
        self,
        deployment: Deployment,
        *,
        keep: bool = False,
        alloys: bool = True,
        monitor: bool = False,
    ) -> None:
        self.keep = keep
        self.alloys = alloys
        self.monitor = monitor
        self.deployment = self._here(deployment)
        self.started_s = 0.0
        """From the start of the first program until all were ready."""
        self._store = SecretStore()
        self._ports = PortLeases()
        self._releases: list[Release] = []
        self._secrets: dict[str, dict[str, dict[str, str]]] = {}
        self._services: dict[ServicePort, int] = {}
        self._pods: dict[str, Pod] = {}
        self._processes: dict[str, ProgramProcess] = {}
        self._programs: dict[str, Program] = {}
        self.directory = Path()
        self._scratch: Scratch | None = None

    # --- life ---

    def __enter__(self) -> Self:
        self._render()
        attempt = 1
        while True:
            try:
                self._start()
                return self
            except BaseException as error:
                self._end()
                if not isinstance(error, _PortTakenError) or attempt == _ATTEMPTS:
                    raise
            attempt += 1

    def __exit__(self, *_: object) -> None:
        self._end()

    def _here(self, deployment: Deployment) -> Deployment:
        """Leave out what a laptop has not, of what is to run."""
        return deployment.with_values(
            lgtm=[_NOTHING_AROUND] if self.monitor else [],
            tenant=[_NO_KUBERNETES_API] if self.alloys else [],
        )

    def _render(self) -> None:
        deployed = self.deployment
        self._releases = list(deployed.releases()) if self.alloys else [deployed.lgtm()]
        self._secrets = {r.namespace: materialize(r, self._store) for r in self._releases}

    def _start(self) -> None:
        self._scratch = Scratch(keep=self.keep)
        self.directory = self._scratch.path
        self._run()

    def _run(self) -> None:
        self._pods = {
            pod.name: pod
            for release in self._releases
            for pod in self._pods_of(release, self.directory)
        }
        self._services = self._addresses(service_ports(self._releases, self._pods.values()))
        for pod in self._pods.values():
            pod.mount(self._secrets[pod.namespace])
            self._processes[pod.name] = self._process(pod)
        began = time.monotonic()
        for process in self._processes.values():
            process.start()
        self._wait_until_ready(self._pods.values())
        self.started_s = time.monotonic() - began

    def _pods_of(self, release: Release, directory: Path) -> Iterator[Pod]:
        """Make the pods of a release, each with a directory of its own."""
        for pod in pods(release, directory, lambda _: self._ports.lease()):
            if self.monitor or pod.name != "monitor":
                yield pod

    def _addresses(self, behind: dict[ServicePort, int]) -> dict[ServicePort, int]:
        """Return the port by which each Service is reached, given that of the pod behind it."""
        return behind

    def _end(self) -> None:
        self._end_all()
        self._ports.release()
        if self._scratch:
            self._scratch.remove()

    def _end_all(self) -> None:
        # The data goes with the directory, so nothing needs to be written in peace.
        for process in self._processes.values():
            process.signal(signal.SIGKILL)
        for process in self._processes.values():
            process.kill()
        self._processes.clear()

    def _process(self, pod: Pod) -> ProgramProcess:
        environment = pod.environment(self._services, self._secrets[pod.namespace])
        environment |= LAPTOP if self.alloys else _CROWD
        program = self._programs[pod.name] = self._program(pod.program)
        argv = [str(program.path), *pod.arguments(environment)]
        return Process(pod.name, argv, environment, pod.directory, self._log(pod))

    def _program(self, name: str) -> Program:
        """Return the program that is to run under this name."""
        return programs.locate(name)

    def _log(self, pod: Pod) -> Path:
        logs = self.directory / "logs"
        logs.mkdir(exist_ok=True)
        return logs / f"{pod.name}.log"

    def _wait_until_ready(self, starting: Iterable[Pod]) -> None:
        waiting = [self._until_ready(pod, self._processes[pod.name]) for pod in starting]
        while waiting:
            waiting = [each for each in waiting if next(each, _READY) != _READY]
            time.sleep(0.01 if waiting else 0)

    def _until_ready(self, pod: Pod, process: ProgramProcess) -> Iterator[str]:
        """Yield what the readiness probe answers until it is 200.

        Raises:
            StackproofError: The program has ended, or the time is up.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            self._refuse_ended(process)
            answer = _probe(pod)
            if answer == _READY:
                return
            if time.monotonic() > deadline:
                raise StackproofError(
                    f"not ready after {_READY_SECONDS:.0f} s; {pod.ready_url()} "
                    f"last answered {answer}\n{process.tail()}",
                    where=pod.name,
                    todo="Run with --keep and read its log.",
                )
            yield answer

    def _refuse_ended(self, process: ProgramProcess) -> None:
        ended = process.ended()
        if ended is None:
            return
        tail = process.tail()
        if "address already in use" in tail:
            raise _PortTakenError(
                f"a port was taken by another program\n{tail}", where=process.name
            )
        raise StackproofError(
            f"{ended} before it was ready\n{tail}",
            where=process.name,
            todo="Its configuration is what the chart renders: correct it there.",
        )

    # --- what the proof asks ---

    @property
    def name(self) -> str:
        """The directory that everything is in."""
        return str(self.directory)

    @property
    def tenants(self) -> tuple[str, ...]:
        """The tenants of the registry."""
        return tuple(self.deployment.registry.names)

    @property
    def versions(self) -> Mapping[str, str]:
        """Version of each program that runs."""
        used = {pod.program: self._programs[name] for name, pod in self._pods.items()}
        return {name: program.version for name, program in sorted(used.items())}

    @property
    def gateway_url(self) -> str | None:
        """Base URL of the gateway, None where the deployment has none."""
        port = self._services.get(ServicePort(OBSERVABILITY_NAMESPACE, "gateway", 8080))
        return None if port is None else f"http://{LOOPBACK}:{port}"

    def otlp_grpc(self, tenant: str) -> str:
        """`host:port` of the tenant's Alloy for OTLP over gRPC."""
        return f"{LOOPBACK}:{self._reached(self._alloy(tenant), 'otlp-grpc')}"

    def otlp_http(self, tenant: str) -> str:
        """Base URL of the tenant's Alloy for OTLP over HTTP."""
        return f"http://{LOOPBACK}:{self._reached(self._alloy(tenant), 'otlp-http')}"

    def backend_url(self, backend: Backend) -> str:
        """Base URL of a backend itself, past the gateway."""
        read = READS[backend]
        port = self._services[ServicePort(OBSERVABILITY_NAMESPACE, backend.value, read.port)]
        return f"http://{LOOPBACK}:{port}{read.direct}"

    def data_sources(self) -> Sequence[Mapping[str, object]]:
        """Grafana's data sources, as its pod would have them, with addresses of this machine."""
        lgtm = self._releases[0]
        workload = lgtm.get("Deployment", "grafana")
        pod = Pod("grafana", lgtm, workload, containers(workload)[0], self.directory / "grafana")
        environment = pod.environment(self._services, self._secrets[lgtm.namespace])
        text = lgtm.get("ConfigMap", "grafana-datasources")["data"]["datasources.yaml"]
        return provisioning.read(text, environment)

    def application(
        self, tenant: str, replica: int = 0, values: Sequence[Values] = ()
    ) -> tuple[Pod, dict[str, str]]:
        """Return a pod of the tenant's application, and its environment on this machine."""
        release = self.deployment.with_values(tenant=values).tenant(tenant)
        workload = release.of_component("Deployment", "open-webui")
        name = f"{workload.name}-{replica}.{release.namespace}"
        pod = Pod(
            name, release, workload, containers(workload)[0], self.directory / name, replica=replica
        )
        secrets = self._secrets[release.namespace]
        pod.mount(secrets)
        return pod, pod.environment(self._services, secrets)

    def health(self) -> Sequence[str]:
        """What has ended that should run."""
        return [f"{name}: {p.ended()}" for name, p in self._processes.items() if p.ended()]

    def memory(self) -> Mapping[str, int]:
        """Peak of each program's resident bytes; empty where there is no /proc."""
        peaks = {name: process.peak_bytes() for name, process in self._processes.items()}
        return {name: peak for name, peak in peaks.items() if peak}

    def over_memory(self) -> Mapping[str, str]:
        """Which programs have had more than their pods get: Kubernetes would have killed them."""
        limits = {name: memory_limit(pod.container) for name, pod in self._pods.items()}
        return {
            name: f"{name} has had {peak / 1e6:.0f} MB of memory, its pod gets {limit / 1e6:.0f}"
            for name, peak in self.memory().items()
            if peak > (limit := limits[name])
        }

    def log_errors(self) -> Sequence[str]:
        """The last errors in each log."""
        return [f"{name}: {line}" for name, p in self._processes.items() for line in _bad(p)]

    # --- what tests do to it ---

    @property
    def components(self) -> tuple[str, ...]:
        """Names of all processes, such as `mimir` and `open-webui-alloy.enterprise-a`."""
        return tuple(self._processes)

    def process(self, component: str) -> ProgramProcess:
        """Return one process, to look at or to harm."""
        return self._processes[component]

    def upgrade(self, deployment: Deployment) -> None:
        """End everything in peace, and start what another deployment renders.

        Volumes stay, and so do the values in the external store.
        """
        for process in self._processes.values():
            process.signal(signal.SIGTERM)
        until(
            lambda: all(process.ended() for process in self._processes.values()),
            within_s=GRACE_SECONDS,
            every_s=0.01,
        )
        self._end_all()
        self.deployment = self._here(deployment)
        self._render()
        self._run()

    def write_secret(self, key: str, value: str | None) -> None:
        """Give a key of the external store another value, or take it away; nothing is synced."""
        self._store.write(key, value)

    def sync(self, namespace: str) -> Mapping[str, str]:
        """Synchronise a namespace's ExternalSecrets, and mount what changed into its pods.

        Returns:
            The reason of each ExternalSecret that makes no Secret, by name. What it made before
            stays, as in a cluster.
        """
        failed: dict[str, str] = {}
        for release in self._releases:
            if release.namespace == namespace:
                self._secrets[namespace] |= materialize(release, self._store, failed)
        for pod in self._pods.values():
            if pod.namespace == namespace:
                pod.mount(self._secrets[namespace])
        return failed

    def restart(self, component: str) -> None:
        """Start a killed component again, with its data, and wait until it is ready."""
        self._processes[component].kill()
        self._processes[component].start()
        self._wait_until_ready([self._pods[component]])

    def _alloy(self, tenant: str) -> Pod:
        namespace = self.deployment.registry.get(tenant).namespace
        for pod in self._pods.values():
            if pod.program == "alloy" and pod.namespace == namespace:
                return pod
        raise StackproofError(
            "no Alloy runs", where=f"tenant {tenant}", todo="Its telemetry is switched off."
        )

    def _reached(self, pod: Pod, port: str) -> int:
        """Return the port by which others reach a named port of a pod."""
        return pod.port(port)

    def password(self, user: str) -> str:
        """Return the administrator's password, or a tenant's as its Alloy has it."""
        if user == "admin":
            return self._secrets[OBSERVABILITY_NAMESPACE]["gateway-admin"]["password"]
        namespace = self.deployment.registry.get(user).namespace
        if not self.alloys:
            made_of = synced_values(self._releases[0], f"gateway-user-{user}", self._store)
            return made_of["password"].strip()
        environment = self._alloy(user).environment(self._services, self._secrets[namespace])
        if file := environment.get("GATEWAY_PASSWORD_FILE"):
            return Path(file).read_text(encoding="utf-8").strip()
        if password := environment.get("GATEWAY_PASSWORD"):  # as revisions of the past have it
            return password
        raise StackproofError("its Alloy has no password for the gateway", where=f"tenant {user}")


class _PortTakenError(StackproofError):
    """Another program was faster: worth another try with other ports."""


def _bad(process: ProgramProcess) -> list[str]:
    return last_errors(process.log.read_text(errors="replace")) if process.log.exists() else []


def _probe(pod: Pod) -> str:
    """Return the status of the readiness probe, or why there is none."""
    path = pod.container["readinessProbe"]["httpGet"]["path"]
    port = pod.port(pod.container["readinessProbe"]["httpGet"]["port"])
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=1)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            return str(connection.getresponse().status)
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
