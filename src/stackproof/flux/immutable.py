"""Which changes of an object the API server refuses, so that neither Helm nor Flux can make them.

The rules are those of Kubernetes' own validation (`Validate…Update` in pkg/apis/*/validation of
kubernetes/kubernetes, v1.34); tests/e2e/cluster/test_cluster.py asks a real API server about each.
Where an earlier one of those that the charts take (their kubeVersion) is stricter, it counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from stackproof.helm.manifests import Manifest, amount

Part = Mapping[str, Any]

#: The fields of a StatefulSet's spec that may change; no other may. revisionHistoryLimit may,
#: but not yet in 1.31 (kubernetes/kubernetes#130263).
_OF_STATEFUL_SETS: Final = frozenset(
    {
        "minReadySeconds",
        "ordinals",
        "persistentVolumeClaimRetentionPolicy",
        "replicas",
        "template",
        "updateStrategy",
    }
)
#: Of a claim's, the volume may grow, where its storage class lets it.
_OF_CLAIMS: Final = frozenset({"resources", "volumeAttributesClassName"})
#: Fields that may not change, of kinds of which the others may.
_FIXED: Final[Mapping[str, tuple[str, ...]]] = {
    "ClusterRoleBinding": ("roleRef",),
    "DaemonSet": ("spec.selector",),
    "Deployment": ("spec.selector",),
    "IngressClass": ("spec.controller",),
    "Job": ("spec.completionMode", "spec.selector", "spec.template"),
    "PriorityClass": ("preemptionPolicy", "value"),
    "RoleBinding": ("roleRef",),
    "Secret": ("type",),
    "StorageClass": ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"),
}
#: What is meant where nothing is said, so that saying it is no change.
_DEFAULTS: Final[Mapping[tuple[str, str], Any]] = {
    ("Job", "completionMode"): "NonIndexed",
    ("PriorityClass", "preemptionPolicy"): "PreemptLowerPriority",
    ("Secret", "type"): "Opaque",
    ("StatefulSet", "podManagementPolicy"): "OrderedReady",
    ("StatefulSet", "revisionHistoryLimit"): 10,
    ("StorageClass", "reclaimPolicy"): "Delete",
    ("StorageClass", "volumeBindingMode"): "Immediate",
}
#: Beside another type than RollingUpdate, `rollingUpdate` is refused. Where nothing says it, the
#: API server fills it in; what nobody applied no server-side apply takes away, and no null does.
_STRATEGIES: Final = {"Deployment": "strategy", "StatefulSet": "updateStrategy"}


def refused(before: Manifest, after: Manifest, *, server_side: bool = False) -> tuple[str, ...]:
    """Return the fields that a change of an object may not touch, and does.

    Args:
        before: The object as it is.
        after: The same object as it should become.
        server_side: It is changed by server-side apply, as Helm 4 changes what it has installed.
            What Helm 3 installed it goes on to patch from the client.

    Returns:
        Paths such as `spec.volumeClaimTemplates`; empty where the change can be made. A Helm hook
        is made anew each time, and may change in any way.
    """
    if after.is_hook:
        return ()
    fields = [*_refused(before, after), *(_left_behind(before, after) if server_side else ())]
    return tuple(dict.fromkeys(fields))


def _refused(before: Manifest, after: Manifest) -> Iterator[str]:
    kind, was, wanted = after.kind, _spec(before), _spec(after)
    if kind == "StatefulSet":
        yield from _outside(_OF_STATEFUL_SETS, kind, was, wanted)
    elif kind == "PersistentVolumeClaim":
        yield from _outside(_OF_CLAIMS, kind, was, wanted)
        if _shrinks(was, wanted):
            yield "spec.resources.requests.storage"
    elif kind == "Service":
        address = wanted.get("clusterIP")  # without one it keeps the one that it was given
        if address and address != was.get("clusterIP"):
            yield "spec.clusterIP"
    elif kind in {"ConfigMap", "Secret"} and before.get("immutable"):
        parts = ("data", "binaryData", "stringData", "immutable")
        yield from (part for part in parts if before.get(part) != after.get(part))
    elif kind == "CustomResourceDefinition":
        yield from _of_definitions(was, wanted)
    for path in _FIXED.get(kind, ()):
        inside, _, name = path.rpartition(".")
        if _value(kind, name, was if inside else before) != _value(
            kind, name, wanted if inside else after
        ):
            yield path


def _of_definitions(was: Part, wanted: Part) -> Iterator[str]:
    """Yield what of a definition may not change once objects of its kind can be there."""
    if was.get("scope") != wanted.get("scope"):
        yield "spec.scope"
    if (was.get("names") or {}).get("kind") != (wanted.get("names") or {}).get("kind"):
        yield "spec.names.kind"
    # What is stored of that version could no longer be read.
    stored = {each["name"] for each in was.get("versions") or () if each.get("storage")}
    if not stored <= {each["name"] for each in wanted.get("versions") or ()}:
        yield "spec.versions"


def _left_behind(before: Manifest, after: Manifest) -> Iterator[str]:
    name = _STRATEGIES.get(after.kind, "")
    was, wanted = (_spec(each).get(name) or {} for each in (before, after))
    rolls = "RollingUpdate"
    ends = was.get("type", rolls) == rolls != wanted.get("type", rolls)
    if ends and not was.get("rollingUpdate"):
        yield f"spec.{name}"


def _spec(manifest: Manifest) -> Part:
    spec: Any = manifest.get("spec")
    return spec if isinstance(spec, Mapping) else {}  # of an operator's kind, it may be anything


def _outside(free: frozenset[str], kind: str, was: Part, wanted: Part) -> Iterator[str]:
    """Yield the fields of a spec that differ and are not among those that may."""
    for name in sorted((was.keys() | wanted.keys()) - free):
        if _value(kind, name, was) != _value(kind, name, wanted):
            yield f"spec.{name}"


def _value(kind: str, name: str, part: Part) -> Any:
    return part.get(name, _DEFAULTS.get((kind, name)))


def _shrinks(was: Part, wanted: Part) -> bool:
    try:
        return _storage(wanted) < _storage(was)
    except ValueError:  # what is no quantity is refused as well
        return True


def _storage(spec: Part) -> float:
    return amount(((spec.get("resources") or {}).get("requests") or {}).get("storage", 0))
