"""The registry of what holds for every render of any chart, and what its rules share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any

from stackproof.checks import Rules
from stackproof.helm.externals import Rendered
from stackproof.helm.manifests import WORKLOAD_KINDS, Manifest, pod_template
from stackproof.helm.uses import uses

INVARIANTS: Rules[Rendered] = Rules()


Finder = Callable[[Rendered], Iterator[str]]


def of_each_object(find: Callable[[Manifest], Iterator[str]]) -> Finder:
    """Make a check of a release from one of a single object, whose verdict is kept by content."""
    known: dict[str, tuple[str, ...]] = {}

    @wraps(find)
    def of_release(rendered: Rendered) -> Iterator[str]:
        for manifest in rendered.release:
            found = known.get(manifest.digest)
            if found is None:
                found = known[manifest.digest] = tuple(find(manifest))
            for problem in found:
                yield f"{manifest.source}: {manifest.ref}: {problem}"

    return of_release


def pod_spec(manifest: Manifest) -> Mapping[str, Any] | None:
    """Return the pod's spec of anything that makes pods, or of a pod."""
    if manifest.kind == "Pod":
        spec: Mapping[str, Any] = manifest["spec"]
        return spec
    return pod_template(manifest)["spec"] if manifest.kind in WORKLOAD_KINDS else None


def all_containers(spec: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return the containers of a pod, those that begin it first."""
    return (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))


def pod_labels(m: Manifest) -> Mapping[str, str]:
    """Return the labels of a workload's pods; none for what makes no pods."""
    if m.kind not in WORKLOAD_KINDS:
        return {}
    return (pod_template(m).get("metadata") or {}).get("labels") or {}


def used(m: Manifest) -> Iterator[tuple[str, str]]:
    """Yield the ConfigMaps and other objects, but Secrets, that a pod refers to: kind and name."""
    spec = pod_spec(m)
    if spec is None:
        return
    yield "ServiceAccount", str(spec.get("serviceAccountName"))
    yield from ((one.kind, one.name) for one in uses(m) if one.kind == "ConfigMap")
    for volume in spec.get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            yield "PersistentVolumeClaim", claim.get("claimName", "")


LONG_RUNNING = ("Deployment", "StatefulSet", "DaemonSet")


def problems(rendered: Rendered) -> Iterator[str]:
    """Yield what any invariant finds, with its name.

    Objects that are not valid have no shape that the others could look at: they are told alone.
    """
    for check in INVARIANTS:
        found = [f"{check.name}: {problem}" for problem in check.find(rendered)]
        yield from found
        if found and check.name == "schema-valid":
            return


def broken(rendered: Rendered) -> tuple[str, str] | None:
    """Return the first invariant that does not hold and its message, None if all do."""
    for check in INVARIANTS:
        for problem in check.find(rendered):
            return check.name, problem
    return None
