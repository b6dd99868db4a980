"""Which pods a namespace admits: the parts of the Pod Security Standards that charts touch.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stackproof.helm.manifests import Manifest, containers, pod_template

LABEL = "pod-security.kubernetes.io/enforce"
_VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
_SECCOMP = frozenset({"RuntimeDefault", "Localhost"})


def refusals(level: str, workload: Manifest) -> tuple[str, ...]:
    """Return why a namespace of this level admits no pod of a workload; empty if it does."""
    if level not in {"baseline", "restricted"}:
        return ()
    spec = pod_template(workload)["spec"]
    found = list(_baseline(spec, workload))
    if level == "restricted":
        found += _restricted(spec, workload)
    return tuple(dict.fromkeys(found))


def _baseline(spec: Mapping[str, Any], workload: Manifest) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    if any("hostPath" in volume for volume in spec.get("volumes") or ()):
        yield "a hostPath volume"
    for container in containers(workload):
        context = container.get("securityContext") or {}
        if context.get("privileged"):
            yield "privileged"
        if any(port.get("hostPort") for port in container.get("ports") or ()):
            yield "a hostPort"
        if set((context.get("capabilities") or {}).get("add") or ()) - {"NET_BIND_SERVICE"}:
            yield "added capabilities"


def _restricted(spec: Mapping[str, Any], workload: Manifest) -> Iterator[str]:
    pod = spec.get("securityContext") or {}
    for volume in spec.get("volumes") or ():
        if volume.keys() - {"name"} - _VOLUMES:
            yield f"the volume {volume['name']}"
    for container in containers(workload):
        own = container.get("securityContext") or {}
        if not own.get("runAsNonRoot", pod.get("runAsNonRoot")):
            yield "may run as root"
        if own.get("runAsUser", pod.get("runAsUser")) == 0:
            yield "runs as root"
        if own.get("allowPrivilegeEscalation") is not False:
            yield "may gain privileges"
        if "ALL" not in ((own.get("capabilities") or {}).get("drop") or ()):
            yield "keeps its capabilities"
        seccomp = own.get("seccompProfile") or pod.get("seccompProfile") or {}
        if seccomp.get("type") not in _SECCOMP:
            yield "no seccomp profile"
