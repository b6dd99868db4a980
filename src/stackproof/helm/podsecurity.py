"""Which pods a namespace admits: the parts of the Pod Security Standards that charts touch.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .manifests import Manifest, containers, pod_template

LABEL = "pod-security.kubernetes.io/enforce"
_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_ADDABLE = {"NET_BIND_SERVICE"}


def refusals(level: str, workload: Manifest) -> Iterator[str]:
    """Yield why a namespace of this level admits no pod of a workload; nothing if it does."""
    if level not in {"baseline", "restricted"}:
        return
    spec = pod_template(workload)["spec"]
    for host in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(host):
            yield f"{host} is set"
    for volume in spec.get("volumes") or ():
        for kind in sorted(volume.keys() - {"name"} - _VOLUMES):
            if level == "restricted" or kind == "hostPath":
                yield f"the volume {volume['name']} is a {kind}"
    pod = spec.get("securityContext") or {}
    for container in containers(workload):
        found = list(_above_baseline(container))
        if level == "restricted":
            found += _above_restricted(pod, container.get("securityContext") or {})
        yield from (f"container {container['name']}: {problem}" for problem in found)


def _above_baseline(container: Mapping[str, Any]) -> Iterator[str]:
    own = container.get("securityContext") or {}
    if own.get("privileged"):
        yield "is privileged"
    for added in sorted(set((own.get("capabilities") or {}).get("add") or ()) - _ADDABLE):
        yield f"adds the capability {added}"
    for port in container.get("ports") or ():
        if port.get("hostPort"):
            yield f"takes the node's port {port['hostPort']}"


def _above_restricted(pod: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[str]:
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if own.get("runAsUser", pod.get("runAsUser")) == 0:
        yield "runs as root"
    profile = own.get("seccompProfile") or pod.get("seccompProfile") or {}
    if profile.get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "has no seccompProfile"
    if "ALL" not in ((own.get("capabilities") or {}).get("drop") or ()):
        yield "does not drop ALL capabilities"
