"""Pods of a cluster while something rolls out: each is told of once, in the order it was seen."""

from __future__ import annotations

from typing import Any, cast

from stackproof.kube.client import Kube
from stackproof.stack.pod_events import PodEvents
from stackproof.stack.rollout import ENDED, ENDING, READY, STARTED


class Cluster:
    """The pods that an API server would list."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self.pods = pods

    def listed(self, *_: str, **__: str) -> tuple[dict[str, Any], ...]:
        return self.pods


def pod(uid: str, component: str, namespace: str = "one", **state: bool) -> dict[str, Any]:
    metadata = {
        "uid": uid,
        "namespace": namespace,
        "labels": {"app.kubernetes.io/component": component},
    }
    if state.get("ending"):
        metadata["deletionTimestamp"] = "2026-11-27T00:00:00Z"
    ready = "True" if state.get("ready") else "False"
    return {"metadata": metadata, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


def test_a_pod_that_takes_over() -> None:
    cluster = Cluster(pod("1", "loki", ready=True), pod("2", "alloy", "two", ready=True))
    seen = PodEvents(cast(Kube, cluster), ["one", "two"])
    assert not seen.changed
    other = pod("2", "alloy", "two", ready=True)
    with seen.seen():
        for now in (
            (pod("1", "loki", ready=True, ending=True), other),
            # Between two looks the one goes and the other comes.
            (pod("3", "loki"), other),
            (pod("3", "loki", ready=True), other),
        ):
            cluster.pods = now
            seen._look()
    assert [(each.component, each.what) for each in seen.events] == [
        ("loki", what) for what in (ENDING, ENDED, STARTED, READY)
    ]
    assert seen.changed == ("loki",)


def test_elsewhere_a_component_has_its_namespace() -> None:
    cluster = Cluster()
    seen = PodEvents(cast(Kube, cluster), ["one", "two"])
    cluster.pods = (pod("1", "alloy", "two"), pod("2", "loki", "nobodys"))
    seen._look()
    assert seen.changed == ("alloy.two",)
