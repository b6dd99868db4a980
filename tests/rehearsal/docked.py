"""A tenant's data stores and application in Docker, as a release renders them; volumes stay.

What a cluster does to a container is done here: its environment, user, capabilities and read-only
root file system; its claims, and to them what the kubelet does for `fsGroup`. What is not here is
what decides about objects: the API server, Helm, Flux, pod security, policies.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tests.rehearsal.users import Asker, Users

from stackproof.errors import StackproofError
from stackproof.helm.manifests import Manifest, Release, containers, pod_template
from stackproof.toolchain.images import ImageChoice, connect
from stackproof.waiting import until

COMPONENTS = ("postgres", "weaviate", "open-webui")
_COMPONENT = "app.kubernetes.io/component"
_LABEL = "stackproof.rehearsal"
_READY_S = 900.0

#: pkg/volume/volume_linux.go: what the kubelet does to a volume whose root has another group, or
#: lacks these bits, with fsGroupChangePolicy OnRootMismatch.
_FS_GROUP = """
mode=$(stat -c %a /volume)
if [ "$(stat -c %g /volume)" = "$GROUP" ] && [ $((0$mode & 02770)) = $((02770)) ]; then exit; fi
chgrp -hR "$GROUP" /volume
find /volume -type d -exec chmod g+rwxs {} +
find /volume -type f -exec chmod g+rw {} +
"""


class Docked(Users):
    """One namespace's worth of containers.

    Args:
        name: Prefix of what is made in Docker.
        password: The users'.
    """

    def __init__(self, name: str, password: str) -> None:
        self.password = password
        self._docker = connect()
        self._name = name
        self._network = self._docker.networks.create(name, labels={_LABEL: name})
        self._containers: dict[str, Any] = {}

    def close(self) -> None:
        """Remove all of it."""
        for component in reversed(COMPONENTS):
            self.stop(component)
        for volume in self._docker.volumes.list(filters={"label": f"{_LABEL}={self._name}"}):
            volume.remove()
        self._network.remove()
        self._docker.close()

    # --- releases ---

    def run(
        self, release: Release, images: Mapping[str, ImageChoice], secrets: Mapping[str, str]
    ) -> float:
        """Replace what runs by a release; return the seconds in which the application was away."""
        began = time.monotonic()
        # Recreate, and the stores' StatefulSets: the old pod ends before the new one starts.
        for component in reversed(COMPONENTS):
            self.stop(component)
        workloads = {m.labels.get(_COMPONENT): m for m in reversed(release.workloads())}
        for component in COMPONENTS:
            shell = images["postgres"].reference
            self._start(release, workloads[component], images[component], secrets, shell)
            self._wait(component)
        return time.monotonic() - began

    def stop(self, component: str) -> None:
        """End a component as a cluster does: a signal, and its grace."""
        container = self._containers.pop(component, None)
        if container is not None:
            container.stop(timeout=120)
            container.remove(force=True)

    def _start(
        self,
        release: Release,
        workload: Manifest,
        image: ImageChoice,
        secrets: Mapping[str, str],
        shell: str,
    ) -> None:
        spec = pod_template(workload)["spec"]
        (container,) = containers(workload)
        of_pod, own = spec.get("securityContext") or {}, container.get("securityContext") or {}
        volumes = {each["name"]: each for each in spec.get("volumes") or ()}
        for template in workload["spec"].get("volumeClaimTemplates") or ():
            name = template["metadata"]["name"]
            claim = {"claimName": f"{name}-{workload.name}-0"}
            volumes[name] = {"persistentVolumeClaim": claim}
        mounts, temporary = {}, {}
        for mount in container.get("volumeMounts") or ():
            claim = volumes[mount["name"]].get("persistentVolumeClaim")
            if claim:
                volume = self._volume(claim["claimName"])
                if "fsGroup" in of_pod:
                    self._give(volume, of_pod["fsGroup"], shell)
                # Else a new volume gets the mode of what the image has there.
                mounts[volume] = {"bind": mount["mountPath"], "mode": "rw,nocopy"}
            else:
                temporary[mount["mountPath"]] = "mode=3777"
        environment = {
            name: secrets[each.key.key] if each.key else each.value or ""
            for name, each in release.env(container, {"metadata.name": workload.name}).items()
            if not each.key or each.key.key in secrets
        }
        # DATABASE_URL of 0.1.0 names the password, which comes from a Secret.
        for name, value in environment.items():
            environment[name] = value.replace("$(DATABASE_PASSWORD)", secrets["postgres-password"])
        component = workload.labels[_COMPONENT]
        user = f"{of_pod['runAsUser']}:{of_pod['runAsGroup']}" if "runAsUser" in of_pod else None
        made = self._docker.containers.create(
            image.reference,
            environment=environment,
            user=user,
            group_add=[str(of_pod["fsGroup"])] if "fsGroup" in of_pod else [],
            read_only=bool(own.get("readOnlyRootFilesystem")),
            cap_drop=(own.get("capabilities") or {}).get("drop") or [],
            security_opt=["no-new-privileges"] if "allowPrivilegeEscalation" in own else [],
            volumes=mounts,
            tmpfs=temporary,
            labels={_LABEL: self._name},
        )
        services = [
            service.name
            for service in release.services()
            if service["spec"]["selector"].get(_COMPONENT) == component
        ]
        aliases = [
            alias for name in services for alias in (name, f"{name}.{release.namespace}.svc")
        ]
        self._network.connect(made, aliases=aliases)
        made.start()
        self._containers[component] = made

    def _volume(self, claim: str) -> str:
        return str(
            self._docker.volumes.create(f"{self._name}-{claim}", labels={_LABEL: self._name}).name
        )

    def _give(self, volume: str, group: int, image: str) -> None:
        """Give a volume to a group, as the kubelet does; the image has a shell."""
        self._docker.containers.run(
            image,
            ["-c", _FS_GROUP],
            entrypoint="sh",
            environment={"GROUP": str(group)},
            volumes={volume: {"bind": "/volume", "mode": "rw"}},
            remove=True,
        )

    def _wait(self, component: str) -> None:
        container = self._containers[component]

        def wrong() -> str:
            container.reload()
            try:
                self._probe(component)
            except (StackproofError, OSError, ValueError) as error:
                return str(error)
            return ""

        last = until(
            wrong,
            lambda seen: not seen or container.status == "exited",
            within_s=_READY_S,
            every_s=0.5,
        )
        if last:
            log = container.logs(tail=25).decode(errors="replace")
            raise StackproofError(f"{component} is not ready: {last}\n{log}", where=self._name)

    def _probe(self, component: str) -> None:
        """Ask a component's readiness probe.

        Raises:
            StackproofError: It is not ready.
        """
        if component == "postgres":
            self.execute("postgres", ["pg_isready", "--host=127.0.0.1", "--username=openwebui"])
        else:
            path = "/health" if component == "open-webui" else "/v1/.well-known/ready"
            self._asker(component).text("GET", path)

    # --- users ---

    def execute(self, component: str, argv: Sequence[str]) -> str:
        """Run a program in a component's container."""
        done = self._containers[component].exec_run(list(argv), demux=True)
        out, error = (part.decode(errors="replace") if part else "" for part in done.output)
        # None where Docker has ended the stream before the program: nothing is known then.
        if done.exit_code != 0:
            raise StackproofError(f"{done.exit_code}: {error or out}", where=" ".join(argv[:2]))
        return str(out)

    @contextmanager
    def application(self) -> Iterator[Asker]:
        """The application, at its container's address."""
        yield self._asker("open-webui")

    def vectors(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the vector store."""
        return self._asker("weaviate")(method, path, body)

    def _asker(self, component: str) -> Asker:
        container = self._containers[component]
        container.reload()
        address = container.attrs["NetworkSettings"]["Networks"][self._name]["IPAddress"]
        return Asker(f"http://{address}:8080")

    def user(self, component: str) -> str:
        """Return the number of the user that a component's first process runs as."""
        return self.execute(component, ["stat", "-c", "%u", "/proc/1"]).strip()
