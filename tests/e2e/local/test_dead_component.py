"""A component that dies during the run makes it incomplete, never isolated, and is named."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from stackproof.flux.deployment import Deployment
from stackproof.isolation import Progress, prove
from stackproof.isolation.verdict import Verdict
from stackproof.repo.checkout import Checkout
from stackproof.stack.local import LocalStack

pytestmark = [pytest.mark.needs_restart, pytest.mark.xdist_group("dead-component")]


@pytest.fixture(scope="module")
def own_stack() -> Iterator[LocalStack]:
    with LocalStack(Deployment.load(Checkout.find())) as stack:
        yield stack


@pytest.mark.parametrize(
    "component", ["mimir", "loki", "tempo", "gateway", "open-webui-alloy.enterprise-a"]
)
@pytest.mark.parametrize("phase", ["telemetry", "controls"])
def test_dead_component_is_named(component: str, phase: str, own_stack: LocalStack) -> None:
    def kill(progress: Progress) -> None:
        if progress.phase == phase:
            own_stack.process(component).signal(signal.SIGKILL)

    try:
        proof = prove(own_stack, on_progress=kill)
    finally:
        own_stack.restart(component)
    assert proof.verdict is Verdict.INCOMPLETE
    assert any(component in problem for problem in proof.health), proof.health
    # It does not wait out the deadline for what cannot come any more.
    assert proof.duration_s < 15


def test_restarted_it_is_isolated_again(own_stack: LocalStack) -> None:
    proof = prove(own_stack)
    assert proof.verdict is Verdict.ISOLATED, "\n".join(map(str, proof.violations))
