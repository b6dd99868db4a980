"""Run the containers of rendered workloads as local processes: a kubelet for a laptop.

Nothing that the charts render is rewritten: the programs get the very files of their ConfigMaps and
the very arguments of their containers. What differs between a pod and a laptop is in the
environment, and only there it is replaced, by five rules:

1. a value that is or lies under a mount path becomes the directory that stands for the volume;
2. a variable `…_PORT` that holds a number gets a free port;
3. `LISTEN_ADDRESS` becomes 127.0.0.1;
4. `SERVICE[.NAMESPACE[.svc[.cluster.local]]]:PORT` in a value becomes the local address of a pod
   behind that Service;
5. Secrets, ConfigMaps and the pod's own fields are filled in as the kubelet does.

Beside these, `stackproof.stack.local` sets how often programs do their background work.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackproof.errors import StackproofError
from stackproof.helm.manifests import EnvVar, Manifest, Release, containers, expand, pod_template
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE

LOOPBACK = "127.0.0.1"

#: The images that run here; the program has the image's name.
PROGRAMS = ("mimir", "loki", "tempo", "alloy", "caddy")

_SERVICE = re.compile(
    r"(?<![\w.-])(?P<name>[a-z0-9][a-z0-9-]*)(?:\.(?P<namespace>[a-z0-9-]+)"
    r"(?:\.svc(?:\.cluster\.local)?)?)?:(?P<port>\d+)(?!\w)"
)


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service, as a client names it."""

    namespace: str
    name: str
    port: int


@dataclass
class Pod:
    """One container of a workload, made ready to run here."""

    name: str
    """Unique in the stack: the workload's name, and for a tenant's `WORKLOAD.NAMESPACE`."""
    release: Release
    workload: Manifest
    container: Mapping[str, Any]
    directory: Path
    """Holds a directory for each volume."""
    ports: dict[str, int] = field(default_factory=dict)
    """Variable `…_PORT` to the local port."""
    replica: int = 0
    """Which of the workload's pods it is: the last part of its name."""

    @property
    def program(self) -> str:
        """What the image runs: the last part of its name (grafana/mimir:3.0.5 is mimir)."""
        return str(self.container["image"]).rsplit("/", 1)[-1].split(":")[0].split("@")[0]

    @property
    def pod_name(self) -> str:
        """What the pod is called; all pods of a namespace have different names."""
        return f"{self.workload.name}-{self.replica}"

    @property
    def namespace(self) -> str:
        """Where the pod would run."""
        return self.workload.namespace or self.release.namespace

    def port(self, name: str) -> int:
        """Return the local port of a named container port.

        Raises:
            StackproofError: The container breaks the rule that each port has its variable.
        """
        variable = f"{name.upper().replace('-', '_')}_PORT"
        if variable not in self.ports:
            raise StackproofError(
                f"container port {name} has no variable {variable}",
                where=f"{self.workload.source}: {self.workload.ref}",
                todo=f"Give the container an env {variable} and use it in the configuration.",
            )
        return self.ports[variable]

    def ready_url(self) -> str:
        """Return the URL of the readiness probe, as reached from here."""
        probe = self.container["readinessProbe"]["httpGet"]
        return f"http://{LOOPBACK}:{self.port(probe['port'])}{probe['path']}"

    def mount(self, secrets: Mapping[str, Mapping[str, str]]) -> None:
        """Write the volumes' files; an emptyDir and a claim become empty directories.

        Mounted again, what changed is put in the place of what was there at once, as in a cluster.
        """
        for name, volume in self.volumes().items():
            folder = self.directory / name
            folder.mkdir(parents=True, exist_ok=True)
            if volume.keys() & {"configMap", "secret", "projected"}:
                _swap(folder, self._files(volume, secrets))

    def environment(
        self, services: Mapping[ServicePort, int], secrets: Mapping[str, Mapping[str, str]]
    ) -> dict[str, str]:
        """Return the whole environment of the process, by the five rules."""
        resolved = self.resolved(secrets)
        local = {name: self._localize(name, value, services) for name, value in resolved.items()}
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.directory), **local}

    def resolved(self, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        """Return the container's environment as the kubelet makes it: by the fifth rule alone."""
        return {
            name: self._resolve(variable, secrets)
            for name, variable in self.release.env(self.container, self._fields()).items()
        }

    def arguments(self, environment: Mapping[str, str]) -> list[str]:
        """Return the container's arguments, with `$(NAME)` expanded as the kubelet does."""
        command: Sequence[str] = self.container.get("command") or ()
        args: Sequence[str] = self.container.get("args") or ()
        # The image's entrypoint is the program, and a command repeats it.
        return [expand(each, environment) for each in (*command[1:], *args)]

    def _resolve(self, variable: EnvVar, secrets: Mapping[str, Mapping[str, str]]) -> str:
        if variable.value is not None:
            return variable.value
        if variable.key is not None:
            return self._secret(secrets, variable.key.name, variable.key.key)
        return ""

    def _fields(self) -> dict[str, str]:
        """Return the fields of the pod that a container may ask for."""
        return {
            "metadata.name": self.pod_name,
            "metadata.namespace": self.namespace,
            "status.podIP": LOOPBACK,
        }

    def _localize(self, name: str, value: str, services: Mapping[ServicePort, int]) -> str:
        if name in self.ports:
            return str(self.ports[name])
        if name == "LISTEN_ADDRESS":
            return LOOPBACK
        for mount in self.container.get("volumeMounts") or ():
            path = mount["mountPath"]
            if value == path or value.startswith(f"{path}/"):
                return f"{self.directory / mount['name']}{value[len(path) :]}"
        return _SERVICE.sub(lambda found: self._address(found, services), value)

    def _address(self, found: re.Match[str], services: Mapping[ServicePort, int]) -> str:
        namespace = found["namespace"] or self.namespace
        local = services.get(ServicePort(namespace, found["name"], int(found["port"])))
        return found[0] if local is None else f"{LOOPBACK}:{local}"

    def volumes(self) -> dict[str, Mapping[str, Any]]:
        """Return the volumes that the container mounts, by name."""
        spec = pod_template(self.workload)["spec"]
        named = {volume["name"]: volume for volume in spec.get("volumes") or ()}
        claims = self.workload["spec"].get("volumeClaimTemplates") or ()
        named |= {claim["metadata"]["name"]: {"persistentVolumeClaim": {}} for claim in claims}
        mounted = [mount["name"] for mount in self.container.get("volumeMounts") or ()]
        return {name: named[name] for name in mounted}

    def _files(
        self, volume: Mapping[str, Any], secrets: Mapping[str, Mapping[str, str]]
    ) -> dict[str, str]:
        if "configMap" in volume:
            data: Mapping[str, str] = (
                self.release.get("ConfigMap", volume["configMap"]["name"]).get("data") or {}
            )
            return _selected(data, volume["configMap"])
        if "secret" in volume:
            source = {**volume["secret"], "name": volume["secret"]["secretName"]}
            return self._secret_files(source, secrets)
        found: dict[str, str] = {}
        for part in (volume.get("projected") or {}).get("sources") or ():
            found |= self._secret_files(part["secret"], secrets)
        return found

    def _secret_files(
        self, source: Mapping[str, Any], secrets: Mapping[str, Mapping[str, str]]
    ) -> dict[str, str]:
        name, known = source["name"], secrets.get(source["name"], {})
        wanted = [item["key"] for item in source.get("items") or ()] or list(known)
        if source.get("optional"):
            wanted = [key for key in wanted if key in known]
        return _selected({key: self._secret(secrets, name, key) for key in wanted}, source)

    def _secret(self, secrets: Mapping[str, Mapping[str, str]], name: str, key: str) -> str:
        try:
            return secrets[name][key]
        except KeyError:
            raise StackproofError(
                f"needs key {key} of Secret {name}, which nothing makes",
                where=f"{self.workload.source}: {self.workload.ref}",
                todo="In a cluster this pod would not start: map the key in an ExternalSecret.",
            ) from None


def _swap(folder: Path, files: Mapping[str, str]) -> None:
    """Write a volume's files as the kubelet does: a link to a new folder replaces the old one.

    Source: kubernetes, pkg/volume/util/atomic_writer.go.
    """
    old = folder / "..data"
    before = old.resolve() if old.is_symlink() else None
    made = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    # A container's user is another one; the stack's own directory keeps others out.
    made.chmod(0o755)
    for path, text in files.items():
        (made / path).write_text(text, encoding="utf-8")
    link = folder / "..data_tmp"
    link.symlink_to(made.name)
    link.replace(old)
    for path in files:
        if not (folder / path).is_symlink():
            (folder / path).symlink_to(f"..data/{path}")
    for entry in folder.iterdir():
        if entry.is_symlink() and not entry.exists():
            entry.unlink()
    if before:
        shutil.rmtree(before)


def _selected(data: Mapping[str, str], source: Mapping[str, Any]) -> dict[str, str]:
    """Return file name to content, after the `items` of a volume where it has some."""
    items = source.get("items")
    if not items:
        return dict(data)
    return {item["path"]: data[item["key"]] for item in items if item["key"] in data}


def pods(
    release: Release, directory: Path, port: Callable[[int], int] = lambda number: number
) -> Iterator[Pod]:
    """Make a pod of each container that runs one of `PROGRAMS`.

    `directory` gets a directory for each pod; `port` gives the local port for a rendered one.
    """
    for workload in release.workloads():
        for container in containers(workload):
            name = _name(release, workload)
            pod = Pod(name, release, workload, container, directory / name)
            if pod.program not in PROGRAMS:
                continue
            for variable, rendered in release.env(container).items():
                if variable.endswith("_PORT") and (rendered.value or "").isdigit():
                    pod.ports[variable] = port(int(rendered.value or 0))
            yield pod


def _name(release: Release, workload: Manifest) -> str:
    if release.namespace == OBSERVABILITY_NAMESPACE:
        return workload.name
    return f"{workload.name}.{release.namespace}"


def service_ports(releases: Iterable[Release], running: Iterable[Pod]) -> dict[ServicePort, int]:
    """Return the local port behind each Service port that one of the pods serves."""
    running = list(running)
    found: dict[ServicePort, int] = {}
    for release in releases:
        for service in release.services():
            for pod in running:
                if _selects(service, pod):
                    found |= _ports_of(service, pod)
    return found


def _selects(service: Manifest, pod: Pod) -> bool:
    selector = service["spec"].get("selector") or {}
    labels = pod_template(pod.workload)["metadata"].get("labels") or {}
    return (
        bool(selector)
        and service.namespace == pod.namespace
        and all(labels.get(key) == value for key, value in selector.items())
    )


def _ports_of(service: Manifest, pod: Pod) -> dict[ServicePort, int]:
    names = {port["containerPort"]: port["name"] for port in pod.container.get("ports") or ()}
    found = {}
    for port in service["spec"]["ports"]:
        target = port.get("targetPort", port["port"])
        name = str(target if isinstance(target, str) else names.get(target))
        if name in names.values():
            local = pod.port(name)
            found[ServicePort(service.namespace or "", service.name, port["port"])] = local
    return found
