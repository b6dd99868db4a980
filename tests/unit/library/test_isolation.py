"""From observations to the verdict: each rule, and each fault that must break it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest

from stackproof.backends import PROVABLE
from stackproof.backends.base import Answer, Mark, Request
from stackproof.isolation import Marks, intruders, observe, pairs
from stackproof.isolation.observer import Observer
from stackproof.isolation.scheduler import Schedule
from stackproof.isolation.verdict import (
    Judgement,
    Observation,
    Observations,
    Observed,
    Verdict,
    Violation,
    ViolationKind,
    judge,
)
from stackproof.model import TENANT_HEADER, Access, Signal
from stackproof.otlp import synthetic

TENANTS = ("soev", "enterprise-a", "enterprise-b")
BY_ID = {api.id: api for api in PROVABLE}
REQUEST = Request("GET", "http://127.0.0.1:8080/x", credential='--user "enterprise-a:$PASSWORD"')


@dataclass
class Run:
    """Observations of a sound run, to be spoilt one at a time."""

    tenants: tuple[str, ...] = TENANTS
    controls: dict[tuple[str, str], Observation] = field(default_factory=dict)
    absences: dict[tuple[str, str, str], Observation] = field(default_factory=dict)
    leaks: list[Observation] = field(default_factory=list)
    faults: list[Violation] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for api in PROVABLE:
            for reader in self.tenants:
                self.controls[api.id, reader] = self.look(api.id, reader)
                self.absences[api.id, reader, reader] = self.look(api.id, reader)
            for reader, owner in pairs(self.tenants) if api.pairwise else ():
                self.absences[api.id, reader, owner] = self.look(api.id, reader, owner, own=False)

    @staticmethod
    def look(
        api: str, reader: str, asked: str = "", *, own: bool = True, others: Iterable[str] = ()
    ) -> Observation:
        return Observation(
            api=api,
            reader=reader,
            asked=asked or reader,
            own=own,
            others=frozenset(others),
            answered=True,
            request=REQUEST,
            answer="HTTP 200: {}",
            elapsed_ms=5.0,
            latency_ms=100.0,
        )

    def judge(self) -> Judgement:
        return judge(
            Observations(
                tenants=self.tenants,
                apis=PROVABLE,
                controls=self.controls,
                absences=self.absences,
                leaks=self.leaks,
                pairs=pairs(self.tenants),
                faults=self.faults,
                health=self.health,
            )
        )


def test_a_sound_run_is_isolated() -> None:
    judgement = Run().judge()
    assert judgement.verdict is Verdict.ISOLATED
    assert judgement.violations == ()
    assert judgement.matrix.summary() == {
        "checked": 27,
        "visible": 9,
        "hidden": 18,
        "leaks": 0,
        "missing": 0,
    }
    assert list(judgement.matrix.exceptions()) == []
    assert all(
        cell.observed is cell.expected and cell.latency_ms for cell in judgement.matrix.cells()
    )


@pytest.mark.parametrize("api", [api.id for api in PROVABLE])
def test_one_foreign_token_in_one_answer_is_a_leak(api: str) -> None:
    run = Run()
    run.leaks.append(run.look(api, "enterprise-a", others=["soev"]))
    judgement = run.judge()
    assert judgement.verdict is Verdict.LEAKING
    assert judgement.matrix.summary()["leaks"] == 1
    signal = BY_ID[api].signal
    assert judgement.matrix.cell("enterprise-a", "soev", signal).observed is Observed.VISIBLE
    # The other direction is still proven.
    assert judgement.matrix.cell("soev", "enterprise-a", signal).observed is Observed.HIDDEN
    (violation,) = judgement.violations
    assert violation.kind is ViolationKind.LEAK
    assert violation.message == f"enterprise-a reads soev's {signal} through {api}"
    assert violation.request == "GET http://127.0.0.1:8080/x"
    assert "enterprise-a:$PASSWORD" in violation.curl


@pytest.mark.parametrize("api", [api.id for api in PROVABLE])
def test_an_owner_that_does_not_see_its_own_hides_nothing(api: str) -> None:
    run = Run()
    seen = run.controls[api, "soev"]
    run.controls[api, "soev"] = replace(seen, own=False, answer="HTTP 404: not found")
    judgement = run.judge()
    assert judgement.verdict is Verdict.INCOMPLETE
    signal = BY_ID[api].signal
    matrix = judgement.matrix
    assert matrix.cell("soev", "soev", signal).observed is Observed.HIDDEN
    assert matrix.cell("enterprise-a", "soev", signal).observed is Observed.UNKNOWN
    assert matrix.cell("soev", "enterprise-a", signal).observed is Observed.HIDDEN
    assert matrix.summary()["missing"] == 3
    (violation,) = judgement.violations
    assert violation.answer == "last observation: HTTP 404: not found"
    assert violation.message == f"soev does not see its own {signal} through {api}"


@pytest.mark.parametrize("api", [api.id for api in PROVABLE])
def test_an_answer_without_the_readers_own_token_proves_no_absence(api: str) -> None:
    run = Run()
    run.absences[api, "soev", "soev"] = run.look(api, "soev", own=False)
    judgement = run.judge()
    assert judgement.verdict is Verdict.INCOMPLETE
    signal = BY_ID[api].signal
    assert judgement.matrix.cell("soev", "enterprise-a", signal).observed is Observed.UNKNOWN
    assert judgement.matrix.cell("enterprise-a", "soev", signal).observed is Observed.HIDDEN
    (violation,) = judgement.violations
    assert violation.message == f"soev does not see its own {signal} any more through {api}"


def test_what_was_never_asked_is_not_proven() -> None:
    run = Run()
    del run.absences["mimir.series", "soev", "soev"]
    assert run.judge().verdict is Verdict.INCOMPLETE
    run = Run()
    del run.controls["loki.tail", "soev"]
    judgement = run.judge()
    assert judgement.verdict is Verdict.INCOMPLETE
    assert judgement.violations[0].answer == "never asked"


def test_a_pairwise_question_without_an_answer_is_unknown() -> None:
    run = Run()
    key = ("tempo.trace-v2", "soev", "enterprise-a")
    run.absences[key] = replace(run.absences[key], answered=False, answer="HTTP 500: oops")
    judgement = run.judge()
    assert judgement.verdict is Verdict.INCOMPLETE
    cell = judgement.matrix.cell("soev", "enterprise-a", Signal.TRACES)
    assert cell.observed is Observed.UNKNOWN
    assert judgement.matrix.summary()["missing"] == 1
    assert "got no answer about enterprise-a's traces" in judgement.violations[0].message


def test_a_leak_wins_over_everything_missing() -> None:
    run = Run()
    run.controls.clear()
    run.health.append("loki: exited with signal 9")
    run.leaks.append(run.look("loki.labels", "soev", own=False, others=["enterprise-b"]))
    judgement = run.judge()
    assert judgement.verdict is Verdict.LEAKING
    assert judgement.violations[0].kind is ViolationKind.LEAK


def test_a_dead_component_is_never_isolated() -> None:
    run = Run()
    run.health.append("tempo: exited with signal 9")
    assert run.judge().verdict is Verdict.INCOMPLETE


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        (ViolationKind.NOT_REFUSED, Verdict.LEAKING),
        (ViolationKind.FALLBACK, Verdict.LEAKING),
        (ViolationKind.VIEW, Verdict.INCOMPLETE),
        (ViolationKind.MISSING, Verdict.INCOMPLETE),
    ],
)
def test_faults_beyond_the_matrix_count(kind: ViolationKind, verdict: Verdict) -> None:
    run = Run()
    run.faults.append(
        Violation(kind=kind, api="mimir.query", reader="soev", owners=("soev",), message="x")
    )
    assert run.judge().verdict is verdict


def test_one_violation_for_all_that_leaks_through_one_request() -> None:
    run = Run()
    for others in (["enterprise-a"], ["enterprise-a", "enterprise-b"]):
        run.leaks.append(run.look("mimir.labels", "soev", others=others))
    judgement = run.judge()
    assert [violation.owners for violation in judgement.violations] == [
        ("enterprise-a", "enterprise-b")
    ]
    assert {api.api: api.leaks for api in judgement.apis}["mimir.labels"] == 2


def test_cells_and_exceptions_agree() -> None:
    run = Run()
    run.leaks.append(run.look("loki.query", "enterprise-a", others=["soev"]))
    run.controls["mimir.query", "soev"] = run.look("mimir.query", "soev", own=False)
    run.absences["tempo.tags", "soev", "soev"] = run.look("tempo.tags", "soev", own=False)
    matrix = run.judge().matrix
    odd = [cell for cell in matrix.cells() if cell.observed is not cell.expected]
    key = lambda cell: (cell.signal, cell.reader, cell.owner)  # noqa: E731
    assert sorted(matrix.exceptions(), key=key) == sorted(odd, key=key)
    counts = matrix.summary()
    assert counts["checked"] == 27 == sum(counts.values()) - 27


# --- what is asked --------------------------------------------------------------------------------


def test_all_pairs_for_few_a_sample_for_many() -> None:
    assert len(pairs(TENANTS)) == 6
    twenty = [f"t{index}" for index in range(20)]
    assert len(pairs(twenty)) == 20 * 19
    many = [f"t{index}" for index in range(1000)]
    sample = pairs(many)
    assert len(sample) == 3 * 1000
    assert all(reader != owner for reader, owner in sample)
    assert {reader for reader, _ in sample} == {owner for _, owner in sample} == set(many)
    assert pairs(["soev"]) == frozenset()


EMISSIONS = {tenant: synthetic.new_emission(tenant, "run") for tenant in TENANTS}
MARKS = Marks(EMISSIONS)


def _answer(body: bytes, status: int = 200, error: str = "") -> Answer:
    return Answer(REQUEST, status, body, error, 3.0)


def _token(tenant: str, signal: Signal) -> bytes:
    return EMISSIONS[tenant].tokens[signal].encode()


def test_the_whole_body_is_searched() -> None:
    api = BY_ID["mimir.query"]
    own, foreign = _token("soev", Signal.METRICS), _token("enterprise-a", Signal.METRICS)
    seen = observe(api, "soev", "soev", _answer(own + b"x" * 100_000 + foreign), MARKS)
    assert seen.own
    assert seen.others == {"enterprise-a"}
    assert foreign.decode() in seen.answer
    assert len(seen.answer) < 400


@pytest.mark.parametrize("status", [200, 404, 500, 403])
def test_a_status_is_no_evidence(status: int) -> None:
    api = BY_ID["tempo.trace-v2"]
    leak = observe(
        api, "soev", "soev", _answer(_token("enterprise-b", Signal.TRACES), status), MARKS
    )
    assert leak.others == {"enterprise-b"}
    empty = observe(api, "soev", "soev", _answer(b'{"trace":{}}', status), MARKS)
    assert not empty.own
    assert not empty.others


def test_the_token_of_another_signal_is_not_the_control() -> None:
    seen = observe(
        BY_ID["loki.query"], "soev", "soev", _answer(_token("soev", Signal.TRACES)), MARKS
    )
    assert not seen.own


def test_anothers_token_is_a_leak_in_whatever_backend_it_turns_up() -> None:
    body = _token("soev", Signal.LOGS) + _token("enterprise-a", Signal.TRACES)
    assert observe(BY_ID["loki.query"], "soev", "soev", _answer(body), MARKS).others == {
        "enterprise-a"
    }


def test_trace_ids_count_only_where_they_are_the_answer() -> None:
    trace = EMISSIONS["soev"].trace_id.encode()
    assert MARKS.find(b'"traceID":"' + trace + b'"', Mark.TRACE_ID) == {
        trace: ("soev", Signal.TRACES)
    }
    # A backend may quote the id that it was asked for: that shows nobody's data.
    assert MARKS.find(b"trace not found: " + trace) == {}
    assert MARKS.find(b"0f" + trace + b"aa", Mark.TRACE_ID) == {trace: ("soev", Signal.TRACES)}


def test_tokens_of_another_run_are_not_this_runs() -> None:
    assert MARKS.find(synthetic.new_token().encode()) == {}


@pytest.mark.parametrize(
    ("answer", "answered"),
    [
        (_answer(b"{}"), True),
        (_answer(b"", 404), True),
        (_answer(b"", 500), False),
        (_answer(b"", 429), False),
        (_answer(b"", error="timed out"), False),
    ],
)
def test_what_counts_as_an_answer(answer: Answer, answered: bool) -> None:
    assert observe(BY_ID["tempo.trace"], "soev", "soev", answer, MARKS).answered is answered


@pytest.mark.parametrize(
    ("deadline_s", "dead", "asked"), [(5.0, False, 3), (5.0, True, 1), (0.0, False, 1)]
)
def test_silence_is_asked_again(
    deadline_s: float, dead: bool, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forwarded port loses a connection now and then; a refusal by nobody refuses nothing."""
    run = object.__new__(Observer)
    run.deadline_s, run.health = deadline_s, {"mimir is dead": None} if dead else {}
    answers = [_answer(b"", error="reset"), _answer(b"", error="reset"), _answer(b"there", 403)]
    told = iter(answers)
    monkeypatch.setattr(run, "ask", lambda *_: next(told), raising=False)
    assert run.ask_once(PROVABLE[0], Access("any", {}), TENANTS[0]) is answers[asked - 1]


def test_intruders_have_something_wrong_each() -> None:
    reader = Access("soev", {}, ("soev", "right"), {TENANT_HEADER: "soev", "X-Other": "1"})
    found = intruders(reader, "enterprise-a")
    assert found
    for name, access in found.items():
        right = access.auth == reader.auth
        header = access.headers.get(TENANT_HEADER)
        assert not right or header not in {None, "soev"}, name
        assert access.headers["X-Other"] == "1"


# --- running tasks --------------------------------------------------------------------------------


def _run(schedule: Schedule, meanwhile: Iterable[None] = ()) -> None:
    ticks = iter(meanwhile)
    schedule.run(lambda: next(ticks, None), every_s=0.01)


def test_tasks_are_repeated_and_may_add_tasks() -> None:
    schedule = Schedule(3)
    done: list[str] = []
    tries = iter([0.001, 0.001, None])

    def first() -> float | None:
        again = next(tries)
        if again is None:
            schedule.add(lambda: done.append("second"))
            done.append("first")
        return again

    schedule.add(first)
    _run(schedule)
    assert done == ["first", "second"]
    assert (schedule.done, schedule.total) == (2, 2)


def test_a_waiting_task_holds_no_thread() -> None:
    schedule = Schedule(1)
    order: list[str] = []
    tries = iter([0.05, None])

    def waits() -> float | None:
        order.append("look")
        return next(tries)

    schedule.add(waits)
    schedule.add(lambda: order.append("other"))
    _run(schedule)
    assert order == ["look", "other", "look"]


def test_what_a_task_raises_is_raised_and_ends_the_run() -> None:
    schedule = Schedule(2)

    def broken() -> None:
        raise ValueError("broken")

    schedule.add(broken)
    schedule.add(lambda: 0.001)  # never done
    with pytest.raises(ValueError, match="broken"):
        _run(schedule)


def test_an_interrupt_ends_the_run_and_its_threads() -> None:
    before = threading.active_count()
    schedule = Schedule(4)
    schedule.add(lambda: 0.001)  # never done
    began = time.monotonic()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        schedule.run(interrupt, every_s=0.01)
    assert time.monotonic() - began < 1
    assert threading.active_count() == before


def test_nothing_to_do() -> None:
    _run(Schedule(2))
