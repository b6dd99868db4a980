"""The deployment in Docker containers: the images as they are, and the rendered bytes as they are.

Each container gets the files, the environment, the arguments, the user and the capabilities of its
rendered pod, and the names of its Services in a network of their own. Nothing is replaced but the
Kubernetes API, which is not there to read pod logs from. Its ports are published on loopback.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.helm.manifests import Release, pod_template
from stackproof.repo.versions import image_version
from stackproof.toolchain.images import Images

from .local import LAPTOP, LocalStack
from .pod import LOOPBACK, Pod
from .process import ProgramProcess

#: The component whose image a program is in, where it is not called as the program.
_COMPONENTS = {"caddy": "gateway"}

#: Says which process a container or a network belongs to, so that none outlives it for long.
_OWNER = "stackproof.owner"


@dataclass
class Container(ProgramProcess):
    """A container with the interface of a process."""

    name: str
    env: Mapping[str, str]
    log: Path
    made: Any = field(repr=False)
    """testcontainers' DockerContainer, ready to be started."""
    _docker: Any = field(default=None, repr=False)

    def start(self) -> None:
        """Start the container.

        Raises:
            StackproofError: Docker cannot; with its own words.
        """
        import docker.errors

        try:
            if self._docker is None:
                self._docker = self.made.start().get_wrapped_container()
            else:
                self._docker.start()
        except docker.errors.DockerException as error:
            raise StackproofError(f"cannot be started: {error}", where=self.name) from error

    @property
    def pid(self) -> int | None:
        """Of its first process, as this machine sees it; None before `start` or once it ended."""
        return self._state().get("Pid") or None

    def _state(self) -> dict[str, Any]:
        if self._docker is None:
            return {}
        self._docker.reload()
        state: dict[str, Any] = self._docker.attrs["State"]
        return state

    def ended(self) -> str | None:
        """How it ended, None while it runs."""
        state = self._state()
        if not state or state["Status"] in {"created", "running", "restarting"}:
            return None
        code = int(state["ExitCode"])
        if state.get("OOMKilled"):
            return "killed for want of memory"
        return (
            f"killed by {signal.Signals(code - 128).name}" if code > 128 else f"exited with {code}"
        )

    def signal(self, number: signal.Signals) -> None:
        """Send its first process a signal."""
        import docker.errors

        # It may have ended a moment ago.
        with contextlib.suppress(docker.errors.APIError):
            if self._docker is not None:
                self._docker.kill(number.name)

    def kill(self) -> None:
        """End it at once, and wait until it has ended; its log is kept."""
        if self._docker is None:
            return
        self.signal(signal.SIGKILL)
        self._docker.wait()
        self.log.write_bytes(self._docker.logs())

    def remove(self) -> None:
        """Remove it."""
        if self._docker is not None:
            self.made.stop()
            self._docker = None

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        if self._docker is None:
            return ""
        text: str = self._docker.logs(tail=lines).decode(errors="replace")
        return text.strip()


class DockerStack(LocalStack):
    """A `Stack` of containers. Entering makes them and their network, leaving removes both."""

    provider = "docker"

    def __init__(self, deployment: Deployment, *, keep: bool = False) -> None:
        super().__init__(deployment, keep=keep)
        self._images = Images(deployment.checkout)
        self._network: Any = None

    def __enter__(self) -> Self:
        self._sweep()
        return super().__enter__()

    @property
    def versions(self) -> Mapping[str, str]:
        """Version of each program's image."""
        used = sorted({pod.program for pod in self._pods.values()})
        return {name: image_version(self._image(name)) for name in used}

    def _image(self, program: str) -> str:
        return self._images.choose(_COMPONENTS.get(program, program)).reference

    def _process(self, pod: Pod) -> ProgramProcess:
        from testcontainers.core.config import testcontainers_config
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.network import Network

        # Its reaper is one more image to pull; what a killed run leaves is swept by the next one.
        testcontainers_config.ryuk_disabled = True
        if self._network is None:
            self._network = Network(docker_network_kw={"labels": {_OWNER: _owner()}}).create()
        environment = pod.resolved(self._secrets[pod.namespace]) | LAPTOP
        who = pod_template(pod.workload)["spec"]["securityContext"]
        may = pod.container["securityContext"]
        made = (
            DockerContainer(self._image(pod.program))
            .with_envs(**environment)
            .with_command(pod.arguments(environment))
            .with_network(self._network)
            .with_network_aliases(*(n for r in self._releases for n in _aliases(r, pod)))
            .with_kwargs(
                entrypoint=(pod.container.get("command") or [None])[:1][0],
                user=f"{who['runAsUser']}:{who['runAsGroup']}",
                read_only=may["readOnlyRootFilesystem"],
                cap_drop=may["capabilities"]["drop"],
                cap_add=may["capabilities"].get("add"),
                security_opt=["no-new-privileges"],
                labels={_OWNER: _owner()},
            )
        )
        for folder, path, mode in self._mounts(pod):
            made.with_volume_mapping(folder, path, mode)
        # Its own way to publish a port would listen on every interface.
        made.ports |= dict(_published(pod))  # type: ignore[arg-type]
        reached = pod.environment(self._services, self._secrets[pod.namespace])
        return Container(pod.name, reached, self._log(pod), made)

    @staticmethod
    def _mounts(pod: Pod) -> Iterator[tuple[str, str, str]]:
        volumes = pod.volumes()
        for mount in pod.container.get("volumeMounts") or ():
            folder = pod.directory / mount["name"]
            fixed = {"configMap", "secret"} & set(volumes[mount["name"]])
            if not fixed:
                folder.chmod(0o777)  # the container's user is another one
            yield str(folder), mount["mountPath"], "ro" if fixed else "rw"

    def _end_all(self) -> None:
        containers = [each for each in self._processes.values() if isinstance(each, Container)]
        super()._end_all()
        for container in containers:
            container.remove()
        if self._network is not None:
            self._network.remove()
            self._network = None

    def _sweep(self) -> None:
        """Remove what an earlier run left, whose process was killed."""
        client = self._images.docker
        for found in (
            *client.containers.list(all=True, filters={"label": _OWNER}),
            *client.networks.list(filters={"label": _OWNER}),
        ):
            host, _, process = _labels(found)[_OWNER].partition(" ")
            if host == socket.gethostname() and not Path(f"/proc/{process}").exists():
                found.remove(**({"force": True} if hasattr(found, "image") else {}))


def _owner() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _labels(found: Any) -> Mapping[str, str]:
    labels: Mapping[str, str] = (
        found.labels if hasattr(found, "labels") else found.attrs.get("Labels") or {}
    )
    return labels


def _aliases(release: Release, pod: Pod) -> Sequence[str]:
    """Return the names under which a release's Services lead to a pod."""
    labels = pod_template(pod.workload)["metadata"].get("labels") or {}
    found = []
    for service in release.services():
        selector = service["spec"].get("selector") or {}
        if service.namespace == pod.namespace and selector.items() <= labels.items():
            name = f"{service.name}.{service.namespace}.svc"
            found += [name, f"{name}.cluster.local"]
    return found


def _published(pod: Pod) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yield the container's ports with the loopback ports that stand for them."""
    for port in pod.container.get("ports") or ():
        yield f"{port['containerPort']}/tcp", (LOOPBACK, pod.port(port["name"]))
