"""What a roll comes to, from what was seen of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.copies import commit, script
from tests.recorded import recorded

from stackproof.errors import StackproofError, UsageError
from stackproof.flux.deployment import Deployment
from stackproof.isolation.verdict import Violation, ViolationKind
from stackproof.model import Signal
from stackproof.repo.checkout import Checkout
from stackproof.report.upgrade import drawn, upgrade_json
from stackproof.stack.rollout import MOUNTED, RollEvent
from stackproof.upgrade import run, sources
from stackproof.upgrade.availability import availability
from stackproof.upgrade.delivered import Delivered
from stackproof.upgrade.result import Seen, Upgrade, UpgradeVerdict, grouped

ISOLATED, LEAKING = recorded("isolated"), recorded("leaking")
GOOD = Upgrade(
    since="main",
    tenants=ISOLATED.tenants,
    before=ISOLATED,
    after=ISOLATED,
    events=(RollEvent(0.5, "gateway", MOUNTED),),
)
ALL = Delivered(Signal.LOGS, 9, lost=0, known=0, twice=0, misplaced=0, faults=())


def _seen(kind: ViolationKind) -> Seen:
    violation = Violation(kind=kind, api="loki.query", reader="a", owners=("b",), message="told")
    return Seen(violation, 2, 1.0, 2.0)


@pytest.mark.parametrize(
    ("upgrade", "verdict", "code"),
    [
        (GOOD, UpgradeVerdict.ISOLATED, 0),
        (replace(GOOD, delivered=(replace(ALL, known=3),)), UpgradeVerdict.ISOLATED, 0),
        (replace(GOOD, before=LEAKING, after=None), UpgradeVerdict.LEAKING, 1),
        (replace(GOOD, after=LEAKING), UpgradeVerdict.LEAKING, 1),
        (replace(GOOD, events=()), UpgradeVerdict.UNCHANGED, 0),
        (replace(GOOD, events=(), after=LEAKING), UpgradeVerdict.LEAKING, 1),
        (replace(GOOD, after=None), UpgradeVerdict.INCOMPLETE, 2),
        (replace(GOOD, unwatched=("soev never saw its own",)), UpgradeVerdict.INCOMPLETE, 2),
        (replace(GOOD, seen=(_seen(ViolationKind.LEAK),)), UpgradeVerdict.LEAKING, 1),
        (replace(GOOD, seen=(_seen(ViolationKind.NOT_REFUSED),)), UpgradeVerdict.LEAKING, 1),
        (replace(GOOD, seen=(_seen(ViolationKind.MISSING),)), UpgradeVerdict.INCOMPLETE, 2),
        (replace(GOOD, delivered=(replace(ALL, misplaced=1),)), UpgradeVerdict.LEAKING, 1),
        (replace(GOOD, delivered=(ALL, replace(ALL, lost=1))), UpgradeVerdict.LOST, 1),
        (replace(GOOD, delivered=(replace(ALL, twice=1),)), UpgradeVerdict.LOST, 1),
        (replace(GOOD, unread=("soev's logs",)), UpgradeVerdict.LOST, 1),
        (replace(GOOD, delivered=(replace(ALL, faults=("none",)),)), UpgradeVerdict.INCOMPLETE, 2),
    ],
)
def test_the_worst_part_decides(upgrade: Upgrade, verdict: UpgradeVerdict, code: int) -> None:
    assert upgrade.verdict is verdict
    assert verdict.exit_code == code


def test_what_is_seen_often_is_told_once() -> None:
    violation = _seen(ViolationKind.LEAK).violation
    (one,) = grouped(iter([(3.0, violation), (1.5, violation)]))
    assert (one.times, one.first_s, one.last_s) == (2, 1.5, 3.0)
    assert "2 times from 1.5 to 3.0 s" in str(one)


def test_seconds_without_an_answer_run_from_question_to_question() -> None:
    polls = {
        "a": [(10.0, True), (11.0, False), (13.0, False), (15.5, True), (16.0, True)],
        "b": [(10.0, True), (12.0, False), (12.5, True)],
    }
    found = availability("reads", polls, 10.0)
    assert (found.tenant, found.gaps, found.polls) == ("a", ((1.0, 5.5),), 8)
    assert found.unanswered_s == 4.5
    assert found.apart_s == 2.5


def test_what_has_no_answer_to_the_end_is_counted_until_then() -> None:
    assert availability("reads", {"a": [(1.0, True), (2.0, False), (4.0, False)]}, 0.0).gaps == (
        (2.0, 4.0),
    )


def test_a_revision_without_this_layout_is_told(tmp_path: Path) -> None:
    (tmp_path / "versions.yaml").write_text("kubernetes: {}\n")
    commit(tmp_path)
    with (
        pytest.raises(StackproofError, match=r"revision HEAD: .* has no charts/lgtm.*later one"),
        sources.earlier(Checkout(tmp_path), "HEAD"),
    ):
        pass
    with (
        pytest.raises(UsageError, match="no revision 'nonsense'"),
        sources.earlier(Checkout(tmp_path), "nonsense"),
    ):
        pass


def test_what_renders_the_same_does_not_roll(checkout: Checkout) -> None:
    now = Deployment.load(checkout)
    assert sources.same(now, Deployment.load(checkout))
    assert not sources.same(now, now.with_values(lgtm=[{"gateway": {"maxBodySize": "15MiB"}}]))


@pytest.mark.parametrize(
    ("option", "why"),
    [("tempo", "not NAME=PATH"), ("temp=/bin/true", "tempo"), ("tempo=/nowhere", "executable")],
)
def test_a_program_that_there_is_not_is_told(option: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        sources.chosen([option])


@pytest.mark.parametrize(
    ("signal", "after_s", "known"),
    [
        (Signal.TRACES, -1.0, True),
        (Signal.TRACES, 2.5, True),
        (Signal.TRACES, -2.0, False),
        (Signal.TRACES, 3.5, False),
        (Signal.LOGS, 0.0, False),
        (Signal.METRICS, 0.0, False),
    ],
)
def test_what_a_tempo_that_ends_may_lose(signal: Signal, after_s: float, known: bool) -> None:
    """Nothing else, and at no other time: the rest is lost, and decides."""
    assert run._known(signal, 100.0 + after_s, [20.0, 100.0]) is known
    assert not run._known(signal, 100.0 + after_s, [])


def test_the_old_side_runs_what_it_pins(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = script(tmp_path / "tempo", "echo v1.2.3")
    monkeypatch.setenv("STACKPROOF_TEMPO", str(program))
    assert sources.pinned(checkout)["tempo"].path == program


def test_the_timeline_draws_what_was_seen() -> None:
    event = RollEvent(0.5, "gateway", "new one started")
    moments = availability("reads of loki", {"soev": [(2.0, False), (3.5, True)]}, 0.0)
    leaking = replace(
        GOOD,
        rolled=("gateway",),
        events=(event,),
        availability=(moments,),
        seen=(_seen(ViolationKind.LEAK), _seen(ViolationKind.MISSING)),
    )
    picture = drawn(upgrade_json(leaking))
    assert [picture.count(f'class="{kind}"') for kind in ("roll", "gap", "leaked")] == [1, 1, 1]
    assert drawn({"since": "main", "verdict": "unchanged", "rolled": []}) == ""
