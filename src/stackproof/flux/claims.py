"""What a HelmRelease waits for: it fails if that never comes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stackproof.helm.manifests import WORKLOAD_KINDS, Manifest, Release, pod_template

from .subject import FLUX, Subject, dig

#: They have no pod before their time, and nobody waits for what is theirs.
_LATER = frozenset({"CronJob", "Job"})


@FLUX.register
def releases_wait_for_no_unused_claim(subject: Subject) -> Iterator[str]:
    """A claim that no pod mounts yet stays Pending, and is not waited for.

    A class with `WaitForFirstConsumer`, as GKE's, binds a claim when its first pod is scheduled;
    until then kstatus (`pvcConditions` in fluxcd/cli-utils), and with it helm-controller, says
    InProgress, unless `healthCheckExprs` says otherwise for claims.
    """
    for release in subject.tree.releases.values():
        m, made = release.manifest, release.rendered
        if made is None or not _waits(m, "PersistentVolumeClaim", "'Pending'"):
            continue
        for claim in made.of_kind("PersistentVolumeClaim"):
            if claim.name not in set(_mounted(made)):
                yield (
                    f"{m.ref} in {m.namespace}: waits for {claim.ref} to be bound, which nothing "
                    "mounts that runs at once (healthCheckExprs)"
                )


@FLUX.register
def releases_wait_for_no_store(subject: Subject) -> Iterator[str]:
    """A release waits for its pods, which wait for the Secrets that they need; not for the store.

    Else a store that does not answer, or one tenant's secret that cannot be made, fails every
    upgrade of the release, with a rollback for each try: to kstatus an ExternalSecret that is not
    Ready is InProgress (`checkReadyCondition` in fluxcd/cli-utils).
    """
    for release in subject.tree.releases.values():
        m, made = release.manifest, release.rendered
        if made is None or not _waits(m, "ExternalSecret", "^true$"):
            continue
        for external in made.of_kind("ExternalSecret"):
            yield (
                f"{m.ref} in {m.namespace}: waits for {external.ref} to be synced: while it is "
                "not, nothing in the release can be upgraded (healthCheckExprs)"
            )


def _waits(m: Manifest, kind: str, healthy: str) -> bool:
    """Tell whether an install or an upgrade waits for a kind whose health is not said to be so."""
    spec = m["spec"]
    for each in spec.get("healthCheckExprs") or ():
        if each["kind"] == kind and re.search(healthy, each["current"]):
            return False
    return not all(dig(spec, how).get("disableWait") for how in ("install", "upgrade"))


def _mounted(made: Release) -> Iterator[str]:
    for workload in made.workloads():
        if workload.kind in set(WORKLOAD_KINDS) - _LATER:
            for volume in pod_template(workload)["spec"].get("volumes") or ():
                yield (volume.get("persistentVolumeClaim") or {}).get("claimName", "")
