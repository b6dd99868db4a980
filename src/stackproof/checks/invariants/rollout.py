"""Changes and drained nodes: what rolls, and what stays up meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stackproof.helm.externals import Rendered
from stackproof.helm.manifests import (
    BEFORE_START_S,
    Manifest,
    at,
    containers,
    pod_labels,
    pod_spec,
    pod_template,
    start_s,
)
from stackproof.helm.references import matches
from stackproof.helm.uses import uses
from stackproof.wording import counted

from .base import INVARIANTS, LONG_RUNNING, of_each_object


@INVARIANTS.register
@of_each_object
def pods_do_not_name_the_charts_version(m: Manifest) -> Iterator[str]:
    """A new version of the chart alone replaces no pod: where Flux deploys, each commit is one."""
    if "helm.sh/chart" in pod_labels(m):
        yield "its pods are labelled helm.sh/chart: each version of the chart replaces them"


@INVARIANTS.register
def what_rolls_says_how(rendered: Rendered) -> Iterator[str]:
    """A rolling strategy names its values, so that server-side apply can take them away.

    Recreate is refused beside a rollingUpdate, and an applier owns only what it said, no default
    (tests/e2e/cluster/test_cluster.py asks an API server).
    """
    for m in rendered.release.of_kind("Deployment"):
        strategy = m["spec"].get("strategy") or {}
        if strategy.get("type") == "RollingUpdate" and not strategy.get("rollingUpdate"):
            yield f"{m.source}: {m.ref}: could not become Recreate: say rollingUpdate"


@INVARIANTS.register
@of_each_object
def slow_starts_are_no_failures(m: Manifest) -> Iterator[str]:
    """A Deployment waits for as long as a start may take, beside what comes before it.

    Past its deadline it has failed, and Helm 4 and Flux wait for nothing that has failed, whatever
    their own time limit (kstatus): they roll it back, amid the start that its probe allows.
    """
    if m.kind != "Deployment":
        return
    deadline = m["spec"].get("progressDeadlineSeconds", 600)
    for container in containers(m):
        start = start_s(container)
        if start and BEFORE_START_S + start > deadline:
            yield (
                f"has failed after {deadline} s, and {container['name']} may take {start} s to "
                f"start, after {BEFORE_START_S} s for a node, a volume and the image"
            )


@INVARIANTS.register
def budgets_let_nodes_drain(rendered: Rendered) -> Iterator[str]:
    """Several replicas have a disruption budget, and every budget lets one pod go, and any unready.

    By default one that runs and is not ready stays while too few are: where none gets ready, as
    with a broken configuration, each node waits for it, on GKE for an hour.
    """
    release = rendered.release
    budgets = release.of_kind("PodDisruptionBudget")
    for m in release.of_kind("Deployment", "StatefulSet"):
        labels, replicas = pod_labels(m), m["spec"].get("replicas", 1)
        own = [b for b in budgets if _selects(b, labels)]
        if replicas > 1 and not own:
            several = counted(replicas, "replica")
            yield f"{m.source}: {m.ref} has {several} and no PodDisruptionBudget"
        for budget in own:
            least = budget["spec"].get("minAvailable", 0)
            if budget["spec"].get("maxUnavailable") == 0 or (
                isinstance(least, int) and least >= replicas
            ):
                yield f"{budget.source}: {budget.ref} lets no pod of {m.ref} go: nodes cannot drain"
            if budget["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
                yield (
                    f"{budget.source}: {budget.ref} keeps pods of {m.ref} that are not ready: "
                    "nodes cannot drain while too few are (unhealthyPodEvictionPolicy)"
                )


@INVARIANTS.register
def replicas_are_apart(rendered: Rendered) -> Iterator[str]:
    """Several replicas of a pod go to several nodes, where there are several."""
    for m in rendered.release.of_kind("Deployment", "StatefulSet"):
        labels = pod_labels(m)
        if m["spec"].get("replicas", 1) > 1 and not any(
            matches(selector, labels) for selector in _apart(pod_spec(m))
        ):
            yield f"{m.source}: {m.ref}: all of its replicas may be on the node that goes"


def _apart(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield selectors of the pods that a pod keeps away from, by node."""
    away = at(spec, "affinity.podAntiAffinity") or {}
    preferred = away.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    for term in (
        *(spec.get("topologySpreadConstraints") or ()),
        *(away.get("requiredDuringSchedulingIgnoredDuringExecution") or ()),
        *(one["podAffinityTerm"] for one in preferred),
    ):
        if term["topologyKey"] == "kubernetes.io/hostname" and term.get("labelSelector"):
            yield term["labelSelector"]


def _selects(m: Manifest, labels: Mapping[str, str]) -> bool:
    wanted = (m["spec"].get("selector") or {}).get("matchLabels") or {}
    return bool(wanted) and wanted.items() <= labels.items()


@INVARIANTS.register
def a_changed_configuration_rolls_its_pods(rendered: Rendered) -> Iterator[str]:
    """A pod template that uses a ConfigMap of the release carries a checksum of a configuration."""
    made = {m.name for m in rendered.release.of_kind("ConfigMap")}
    for m in rendered.release.of_kind(*LONG_RUNNING):
        used = {one.name for one in uses(m) if one.kind == "ConfigMap"} & made
        annotations = at(pod_template(m), "metadata.annotations") or {}
        sums = [v for key, v in annotations.items() if key.startswith("checksum/")]
        if used and not any(re.fullmatch(r"[0-9a-f]{64}", str(value)) for value in sums):
            names = ", ".join(sorted(used))
            yield f"{m.source}: {m.ref}: a change of {names} does not roll its pods"
