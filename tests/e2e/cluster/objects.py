"""Objects that several tests of the cluster make or change in the same way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from stackproof.kube.client import Kube, Object


@contextmanager
def namespace(kube: Kube, name: str) -> Iterator[str]:
    """Make a namespace for as long as a block lasts."""
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    kube.apply(space)
    try:
        # The ServiceAccount of a new namespace takes a moment.
        kube.until(
            lambda: kube.find("v1", "ServiceAccount", "default", name),
            within_s=60,
            what="the new namespace is ready",
        )
        yield name
    finally:
        kube.delete(space)


def restart(kube: Kube, workload: Object) -> None:
    """Replace a workload's pods, as `kubectl rollout restart` does."""
    mark = {"kubectl.kubernetes.io/restartedAt": str(time.time_ns())}
    kube.patch(workload, {"spec": {"template": {"metadata": {"annotations": mark}}}})
