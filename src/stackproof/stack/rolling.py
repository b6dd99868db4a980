"""A local stack that goes over to what another deployment renders, as a cluster would.

A pod has ports of its own, as it has an address of its own in a cluster, so that the old and the
new one can run side by side; what they are reached by are the addresses of their Services, which
stay (`service_proxy`). Told apart from a cluster: nobody pulls images, and a kubelet is not late.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.helm.manifests import Release, pod_template
from stackproof.toolchain.programs import Program

from .local import GRACE_SECONDS, LocalStack
from .pod import Pod, ServicePort, service_ports
from .process import ProgramProcess
from .rollout import ENDED, ENDING, KILLED, MOUNTED, READY, STARTED, RollEvent
from .secrets import unchanged
from .service_proxy import ServiceProxy

#: Between files that are put in the place of others and the first pod that is replaced: the
#: programs look once a second whether their files have changed. A pod may go on so much longer
#: with files that were made for its successor.
_FILES_FIRST_S = 2.0
_TURN_S = 0.01

#: One workload going over to its new pod: a step each time it is asked for the next.
_Roll = Iterator[object]


class RollingStack(LocalStack):
    """A `LocalStack` that can `roll`, in the thread that entered it.

    Args:
        deployment: What to run at first.
        binaries: Programs to run at first instead of those that are pinned, by name.
        then: Programs to run so after a roll.
        keep: Leave the directory when it ends.
        pace_s: See `Rollable.pace_s`.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        binaries: Mapping[str, Program] | None = None,
        then: Mapping[str, Program] | None = None,
        keep: bool = False,
        pace_s: float = 0.1,
    ) -> None:
        super().__init__(deployment, keep=keep)
        self.events: list[RollEvent] = []
        self.pace_s = pace_s
        self._declared = deployment
        self._binaries, self._then = dict(binaries or {}), dict(then or {})
        self._ending: list[ProgramProcess] = []
        self._proxy = ServiceProxy()
        self._rolls = 0

    # --- what differs from a stack that stays as it is ---

    def _program(self, name: str) -> Program:
        return self._binaries.get(name) or super()._program(name)

    def _run(self) -> None:
        self._proxy.close()
        self._proxy = ServiceProxy()
        super()._run()

    def _addresses(self, behind: dict[ServicePort, int]) -> dict[ServicePort, int]:
        services = {each: self._ports.lease() for each in behind}
        for each, port in services.items():
            self._proxy.lead(port, behind[each])
        return services

    def _reached(self, pod: Pod, port: str) -> int:
        behind = service_ports(self._releases, [pod])
        return next(self._services[each] for each, at in behind.items() if at == pod.port(port))

    def _end_all(self) -> None:
        for process in self._ending:
            process.kill()
        self._ending.clear()
        super()._end_all()
        self._proxy.close()

    # --- the roll ---

    def roll(self, deployment: Deployment) -> tuple[str, ...]:
        """See `Rollable.roll`: in the order of Flux, observability and then all tenants at once.

        In each release files first, then the pods whose template or program is another.
        """
        self._declared, self._binaries = deployment, self._then
        self.deployment = self._here(deployment)
        releases, secrets = {r.namespace: r for r in self._releases}, self._secrets
        self._render()
        for release in self._releases:
            # A template may put salt into what it makes: it is the same for as long as it is kept.
            for name in unchanged(releases.get(release.namespace, ()), release):
                self._secrets[release.namespace][name] = secrets[release.namespace][name]
        self._rolls += 1
        folder = self.directory / f"roll-{self._rolls}"
        lgtm, *tenants = ([*self._pods_of(release, folder)] for release in self._releases)
        steps = (lgtm, [pod for release in tenants for pod in release])
        self._listen(itertools.chain(*steps))
        changed: list[str] = []
        for wanted in steps:
            self._mount({pod.namespace: pod.release for pod in wanted})
            rolled = [pod for pod in wanted if self._differs(pod)]
            self._advance(rolled)
            changed += [pod.name for pod in rolled]
        kept = {pod.name for wanted in steps for pod in wanted}
        gone = [self._pods[name] for name in self._pods.keys() - kept]
        _together([self._end_pod(pod, self._processes.pop(pod.name)) for pod in gone])
        for pod in gone:
            del self._pods[pod.name]
        return (*changed, *(pod.name for pod in gone))

    def _listen(self, ahead: Iterator[Pod]) -> None:
        """Give each new Service an address; nobody is behind it yet."""
        for each in service_ports(self._releases, list(ahead)):
            if each not in self._services:
                self._services[each] = self._ports.lease()

    def _mount(self, releases: Mapping[str, Release]) -> None:
        """Give the running pods the files that the objects of their releases hold now."""
        told = False
        for pod in self._pods.values():
            if pod.namespace not in releases:
                continue
            before, pod.release = _files(pod), releases[pod.namespace]
            # What is deleted, or cannot be made, leaves the files that there were.
            with contextlib.suppress(StackproofError):
                pod.mount(self._secrets[pod.namespace])
            if _files(pod) != before:
                self._tell(pod, MOUNTED)
                told = True
        if told:
            time.sleep(_FILES_FIRST_S)

    def _differs(self, pod: Pod) -> bool:
        """Tell whether a pod is another than the one that runs, as its controller sees it."""
        old = self._pods.get(pod.name)
        if old is None:
            return True
        same_program = self._programs[pod.name].path == self._program(pod.program).path
        return not same_program or pod_template(old.workload) != pod_template(pod.workload)

    def _advance(self, rolled: Sequence[Pod]) -> None:
        """Replace pods: Deployments side by side, and StatefulSets one after another."""
        sets = [pod for pod in rolled if pod.workload.kind == "StatefulSet"]
        others = [pod for pod in rolled if pod.workload.kind != "StatefulSet"]
        one_by_one = itertools.chain.from_iterable(self._replace(pod) for pod in sets)
        _together([one_by_one, *(self._replace(pod) for pod in others)])

    def _replace(self, new: Pod) -> _Roll:
        old = self._pods.get(new.name)
        if old is None:
            yield from self._begin(new)
            return
        process = self._processes[old.name]
        self._ending.append(process)
        _take_over_claims(old, new)
        if self._surges(new):
            yield from self._begin(new)
            yield from self._end_pod(old, process)
        else:
            # A pod that ends is asked while there is no other. Source: kubernetes,
            # pkg/proxy/topology.go.
            yield from self._end_pod(old, process)
            self._lead(old, to_it=False)
            yield from self._begin(new)
        self._ending.remove(process)

    def _begin(self, pod: Pod) -> _Roll:
        """Start a pod; when it is ready, its Services lead to it."""
        pod.mount(self._secrets[pod.namespace])
        process = self._process(pod)
        process.start()
        self._pods[pod.name], self._processes[pod.name] = pod, process
        self._tell(pod, STARTED)
        yield from self._until_ready(pod, process)
        self._lead(pod)
        self._tell(pod, READY)

    def _end_pod(self, pod: Pod, process: ProgramProcess) -> _Roll:
        """End a pod as a kubelet does: its hook, SIGTERM, and SIGKILL when its grace is over."""
        spec = pod_template(pod.workload)["spec"]
        began = time.monotonic()
        ends = began + float(spec.get("terminationGracePeriodSeconds", GRACE_SECONDS))
        hook = ((pod.container.get("lifecycle") or {}).get("preStop") or {}).get("sleep") or {}
        while time.monotonic() < began + float(hook.get("seconds", 0)):
            yield None
        self._tell(pod, ENDING)
        process.signal(signal.SIGTERM)
        while process.ended() is None and time.monotonic() < ends:
            yield None
        self._tell(pod, KILLED if process.ended() is None else ENDED)
        process.kill()

    def _lead(self, pod: Pod, *, to_it: bool = True) -> None:
        for service, port in service_ports(self._releases, [pod]).items():
            self._proxy.lead(self._services[service], port if to_it else None)

    def _surges(self, pod: Pod) -> bool:
        """Tell whether the new pod is ready before the old one ends.

        By what a cluster has, and not by what is left out of it here.
        """
        if pod.workload.kind == "StatefulSet":
            return False
        registry = self._declared.registry
        tenant = next((each for each in registry if each.namespace == pod.namespace), None)
        release = self._declared.tenant(tenant.name) if tenant else self._declared.lgtm()
        strategy = release.get(pod.workload.kind, pod.workload.name)["spec"].get("strategy") or {}
        surge = (strategy.get("rollingUpdate") or {}).get("maxSurge", "25%")
        return strategy.get("type") != "Recreate" and str(surge).rstrip("%") != "0"

    def _tell(self, pod: Pod, what: str) -> None:
        self.events.append(RollEvent(time.monotonic(), pod.name, what))


def _together(rolls: Sequence[_Roll]) -> None:
    """Advance all at once until the last has ended."""
    done = object()
    while rolls:
        rolls = [each for each in rolls if next(each, done) is not done]
        time.sleep(_TURN_S if rolls else 0)


def _files(pod: Pod) -> dict[str, bytes]:
    """Return what the files of a pod's ConfigMaps and Secrets hold."""
    return {
        f"{volume}/{path.name}": path.read_bytes()
        for volume in pod.volumes()
        for path in (pod.directory / volume).glob("*")
        if path.is_symlink() and path.is_file()
    }


def _claim(volume: str, source: Mapping[str, Any]) -> str | None:
    """Return by which claim a pod has a volume; None where nothing of it outlives the pod."""
    claim = source.get("persistentVolumeClaim")
    return None if claim is None else str(claim.get("claimName") or volume)


def _take_over_claims(old: Pod, new: Pod) -> None:
    """Give a new pod the volumes of the old one whose claims it names."""
    held = {_claim(name, source): name for name, source in old.volumes().items()}
    for name, source in new.volumes().items():
        claim = _claim(name, source)
        if claim is not None and claim in held:
            new.directory.mkdir(parents=True, exist_ok=True)
            (new.directory / name).symlink_to(old.directory / held[claim])
