"""What is made of a cluster's answers, and how a wait ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stackproof.errors import StackproofError
from stackproof.kube.client import ApiError, Kube, _is_rolled_out, why_not


def _workload(kind: str, **status: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "metadata": {"generation": 2},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 2, **status},
    }


ALL = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2}
SAME = {"currentRevision": "a", "updateRevision": "a"}


@pytest.mark.parametrize(
    ("workload", "done"),
    [
        (_workload("Deployment", **ALL), True),
        (_workload("Deployment", **ALL | {"replicas": 3}), False),
        (_workload("Deployment", **ALL | {"readyReplicas": 1}), False),
        (_workload("Deployment", **ALL | {"observedGeneration": 1}), False),
        (_workload("Deployment"), False),
        (_workload("StatefulSet", **ALL, **SAME), True),
        (_workload("StatefulSet", **ALL, **SAME | {"updateRevision": "b"}), False),
        (
            _workload(
                "DaemonSet", desiredNumberScheduled=1, numberReady=1, updatedNumberScheduled=1
            ),
            True,
        ),
        (_workload("DaemonSet", desiredNumberScheduled=1), False),
        # No node is for it: the API leaves out the others, which are 0.
        (_workload("DaemonSet", desiredNumberScheduled=0, numberReady=0), True),
        ({**_workload("Deployment"), "spec": {"replicas": 0}}, True),
    ],
)
def test_rolled_out_means_all_pods_of_the_newest_template(
    workload: dict[str, Any], done: bool
) -> None:
    assert _is_rolled_out(workload) is done


def test_a_pod_says_why_it_is_not_ready() -> None:
    waiting = {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no key"}}}
    condition = {"type": "Ready", "status": "False", "message": "containers not ready"}
    pod = {
        "metadata": {"name": "web"},
        "status": {"containerStatuses": [waiting], "conditions": [condition]},
    }
    assert list(why_not(pod)) == ["web: CreateContainerConfigError no key"]
    pod["status"] = {"conditions": [condition]}
    assert list(why_not(pod)) == ["web: containers not ready"]


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {"token": "t0ken"}}],
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "here",
            }
        )
    )
    return path


def test_a_context_that_is_not_there_is_an_error(kubeconfig: Path) -> None:
    with pytest.raises(StackproofError, match="there is no context 'elsewhere'"):
        Kube("elsewhere", kubeconfig)


def test_the_token_of_the_kubeconfig_is_sent(kubeconfig: Path) -> None:
    assert Kube("here", kubeconfig).headers() == {"authorization": "Bearer t0ken"}


def test_a_wait_ends_with_what_was_seen_last(kubeconfig: Path) -> None:
    kube = Kube("here", kubeconfig)
    with pytest.raises(StackproofError, match=r"it is there: not within 0 s\nstill nothing"):
        kube.until(lambda: None, within_s=0, what="it is there", seen=lambda: "still nothing")
    refusal = ApiError(403, "not yours", "GET /x")

    def refused() -> bool:
        raise refusal

    with pytest.raises(ApiError, match="not yours"):
        kube.until(refused, within_s=0, what="it is there")
    with pytest.raises(StackproofError, match=r"not within 0 s\nGET /x: HTTP 403: not yours"):
        kube.until(
            refused, within_s=0, what="it is there", retry=lambda e: e.status == 403, seen=str
        )


def test_a_kubeconfig_that_is_not_there_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StackproofError, match=f"{tmp_path}/none: there is no kubeconfig"):
        Kube(kubeconfig=tmp_path / "none")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/a:{tmp_path}/b")
    with pytest.raises(StackproofError, match=f"{tmp_path}/a, {tmp_path}/b: there is no"):
        Kube("any")
