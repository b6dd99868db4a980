"""A commit rolls out in a cluster, by Flux, under the eyes of all tenants."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from tests.copies import DEPLOYED, copied

from stackproof import upgrade
from stackproof.flux.deployment import Deployment
from stackproof.helm import chartversion
from stackproof.repo.checkout import Checkout
from stackproof.report import show_upgrade
from stackproof.stack.kind import KindStack
from stackproof.stack.rollout import ENDED, ENDING, READY, STARTED
from stackproof.twins import TWINS
from stackproof.twins.base import Edit
from stackproof.upgrade import UpgradeVerdict

pytestmark = pytest.mark.needs_restart

#: A Tempo with one processor, and all that the tests before have left in it, takes its time.
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def flux(kind: KindStack) -> Iterator[KindStack]:
    """The cluster, with the whole tree applied by Flux; afterwards it is as it was."""
    deployment = kind.deployment
    with kind.by_flux():
        yield kind
        kind.roll(deployment)


def _next(folder: Path, *edits: Edit) -> Deployment:
    """Return what the next commit deploys: these files, with some texts replaced."""
    made = copied(Checkout.find(), folder, DEPLOYED)
    for edit in edits:
        edit.apply(folder)
    for chart in (folder / "charts").glob("*/"):
        chartversion.write(chart)
    return Deployment.load(made)


def test_a_commit_is_isolated_at_every_moment(flux: KindStack, tmp_path: Path) -> None:
    before = len(flux.events)
    loki = Edit("observability/loki-values.yaml", "maxQuerySeries: 500", "maxQuerySeries: 501")
    changed = _next(tmp_path, loki)
    found = upgrade.prove(flux, changed, deadline_s=PATIENCE_S)
    show_upgrade(found, Console())
    assert found.verdict is UpgradeVerdict.ISOLATED, found.reasons
    assert found.rolled == ("loki",)
    told = [each.what for each in flux.events[before:] if each.component == "loki"]
    assert told == [ENDING, ENDED, STARTED, READY]
    assert all(each.acknowledged > 30 for each in found.delivered)
    answers = {each.name: each for each in found.availability}
    # A restart is seen, and what is not restarted is there.
    assert answers["reads of loki"].unanswered_s > 0.2
    for name in ("reads of mimir", "reads of tempo", "all to Alloy"):
        assert answers[name].unanswered_s < 5, answers[name]


def test_a_fault_is_caught(flux: KindStack, tmp_path: Path) -> None:
    twin = next(each for each in TWINS if each.name == "gateway-forgets-a-tenant")
    found = upgrade.prove(flux, _next(tmp_path, *twin.edits), deadline_s=PATIENCE_S)
    assert any(re.search(twin.reason, told) for told in found.reasons), found.reasons
