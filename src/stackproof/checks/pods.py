"""Rules for a single pod that hold for both charts, given what is known of its program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stackproof.helm.manifests import Manifest, lasting, pod_spec


def owned(workload: Manifest, user: tuple[int, int] | None) -> Iterator[str]:
    """Yield where a pod is not its image's user and group, or its volumes are of another group."""
    security = pod_spec(workload).get("securityContext") or {}
    own = (security.get("runAsUser"), security.get("runAsGroup"))
    if user and own != user:
        yield f"{workload.ref}: runs as {own}, its image's user and group are {user}"
    if security.get("fsGroup") != security.get("runAsGroup"):
        yield f"{workload.ref}: its volumes belong to another group than its own (fsGroup)"


def patient(container: Mapping[str, Any], start_s: int) -> Iterator[str]:
    """Yield where probes are too hasty or too slow.

    Args:
        container: The container.
        start_s: How long a start may take at least [s]; 0 without a startup probe.
    """
    name = container["name"]
    start, ready, alive = (
        lasting(container.get(f"{probe}Probe")) for probe in ("startup", "readiness", "liveness")
    )
    if start_s and not start_s <= start <= _STARTED_S:
        yield f"container {name}: may take {start} s to start, must be {start_s} to {_STARTED_S} s"
    if ready > _UNREADY_S:
        yield f"container {name}: unready after {ready} s, must be {_UNREADY_S} s at most"
    if not _DEAD_S[0] <= alive <= _DEAD_S[1]:
        yield f"container {name}: killed after {alive} s, must be {_DEAD_S[0]} to {_DEAD_S[1]} s"


#: Longer than that, and Flux takes the release for failed (flux: everybody-waits-long-enough).
_STARTED_S = 600
_UNREADY_S = 30
_DEAD_S = (60, 180)
