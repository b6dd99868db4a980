"""Probes in a cluster: pods of our own, and containers beside a pod's, to see what it can reach."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from stackproof.errors import StackproofError

from .client import Kube, Object

#: What the restricted pod security standard asks of a container.
RESTRICTED: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}

_START_S = 60.0


def component(kube: Kube, namespace: str, name: str) -> dict[str, Any]:
    """Return a pod of a component of our charts."""
    return kube.pods(namespace, f"app.kubernetes.io/component={name}")[0]


def probe_pod(
    image: str,
    namespace: str,
    *,
    labels: Mapping[str, str] | None = None,
    verb: str = "sleep",
    **env: str,
) -> dict[str, Any]:
    """Return a pod that waits to be asked, or does what a verb of the stand-in says."""
    variables = [{"name": name, "value": value} for name, value in env.items()]
    container = _container("probe", image, verb) | {"env": variables}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"probe-{secrets.token_hex(4)}",
            "namespace": namespace,
            "labels": dict(labels or {}),
        },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": [container],
        },
    }


def _container(name: str, image: str, verb: str) -> dict[str, Any]:
    security = dict(RESTRICTED)
    return {"name": name, "image": image, "args": [verb], "securityContext": security}


def saying(image: str, namespace: str, text: str, times: int) -> dict[str, Any]:
    """Return a pod that prints so many different lines with a text."""
    said = "\n".join(f"{text} {n}" for n in range(times))
    return probe_pod(image, namespace, verb="serve", SAY=said)


@contextmanager
def running(kube: Kube, pod: Object) -> Iterator[str]:
    """Run a pod for as long as the block lasts; give its name."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    kube.apply(pod)
    try:
        kube.until(
            lambda: kube.get("v1", "Pod", name, namespace)["status"]["phase"] == "Running",
            within_s=_START_S,
            what=f"pod {name} runs",
        )
        yield name
    finally:
        kube.delete(pod, grace_s=0)
        kube.until(
            lambda: kube.find("v1", "Pod", name, namespace) is None,
            within_s=_START_S,
            what=f"pod {name} is gone",
        )


def beside(kube: Kube, pod: Object, image: str) -> tuple[str, str, str]:
    """Start a container in a pod's own network; return pod, namespace and container.

    What is seen from there is what the pod itself sees: it has its labels and its address.
    """
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    for each in pod["spec"].get("ephemeralContainers") or ():
        if each["image"] == image:
            return name, namespace, each["name"]
    container = f"probe-{secrets.token_hex(4)}"
    wanted = _container(container, image, "sleep")
    kube.request(
        "PATCH",
        f"/api/v1/namespaces/{namespace}/pods/{name}/ephemeralcontainers",
        {"spec": {"ephemeralContainers": [wanted]}},
        content="application/strategic-merge-patch+json",
    )

    def started() -> bool:
        found = kube.get("v1", "Pod", name, namespace)
        statuses = found["status"].get("ephemeralContainerStatuses") or ()
        return any(s["name"] == container and "running" in s["state"] for s in statuses)

    kube.until(started, within_s=_START_S, what=f"a container beside {namespace}/{name} runs")
    return name, namespace, container


def dial(
    kube: Kube, pod: str, namespace: str, container: str, addresses: Sequence[str]
) -> dict[str, str]:
    """Return what connecting to each address from a container comes to: "open", "closed: …" or
    "unknown: …".
    """
    dialled = ["/usr/local/bin/standin", "dial", *addresses]
    told = kube.execute(pod, namespace, container, dialled, may_fail=True)
    lines = (line.partition(" ") for line in told.splitlines())
    found = {address: said for address, _, said in lines}
    if set(found) != set(addresses):
        raise StackproofError(f"dial said: {told}", where=f"pod {namespace}/{pod}")
    return found
