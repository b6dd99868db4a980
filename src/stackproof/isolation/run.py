"""Prove that no tenant reads another's telemetry, with a control for every claim of absence.

1. Every tenant sends its signals, each marked with a token nobody can guess.
2. Control: each owner asks each read API until its own token is in the answer.
3. Absence: once the controls of *all* owners are over for an API, each reader asks it again. The
   body must hold the reader's own token and nobody else's.

The steps overlap: a tenant's controls begin when its telemetry was taken, while others still send.

A run costs one control and one read per tenant and API, so it grows linearly though it proves N²
pairs. Only APIs that are asked for one owner's data by name (a trace by its id) need a question a
pair: all pairs up to `PAIRWISE_LIMIT` tenants, `PAIRWISE_SAMPLE` owners a reader beyond it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from stackproof.backends import PROVABLE
from stackproof.backends.base import Client, ReadApi
from stackproof.errors import UsageError
from stackproof.model import BACKEND_OF, Backend, EntryPoint, Signal
from stackproof.options import check_names
from stackproof.otlp import senders, synthetic
from stackproof.otlp.senders import ExportError
from stackproof.repo.versions import Versions
from stackproof.stack.base import Stack

from . import data_sources, fallback_tenants, programs, refusals
from .observer import Observer
from .proof import Progress, Proof
from .scheduler import Schedule, Task
from .tokens import Window, observe, window
from .verdict import (
    Judgement,
    Observation,
    Observations,
    Verdict,
    Violation,
    ViolationKind,
    judge,
    single_tenant,
)

#: Up to this many tenants every ordered pair is asked on pairwise APIs.
PAIRWISE_LIMIT = 20
#: Beyond it each reader asks for the traces of this many others, spread evenly over the list.
PAIRWISE_SAMPLE = 3

_WORKERS = 16
#: An answer is waited for so long [s], or for a third of the deadline.
_TIMEOUT_S = 10.0
#: So many tenants send at once; the next begins when the controls of the one before are queued.
_CONCURRENT_SENDERS = 8
_POLL_S = (0.025, 0.1)  # first and longest pause between two looks at the same thing
#: A first look is taken no sooner than this share of the shortest wait that the API has shown.
_PATIENT = 0.8
_HEALTH_S = 0.25
#: Telemetry that a busy receiver refuses is sent again for this long, and how often.
_RESEND_S, _RESEND_PAUSE_S = 5.0, 0.2
#: Once a leak is seen the verdict stands: what else is missing is waited for no longer than this.
_AFTER_LEAK_S = 2.0


def prove(
    stack: Stack,
    tenants: Sequence[str] | None = None,
    *,
    signals: Sequence[Signal] = tuple(Signal),
    apis: Sequence[ReadApi] = PROVABLE,
    deadline_s: float = 30.0,
    entry_point: EntryPoint | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    pins: Versions | None = None,
) -> Proof:
    """Prove the isolation of `tenants` (default: all that are deployed) on a running stack.

    What ran is compared with `pins`, what is deployed.
    `deadline_s` is what each control, and each read after it, may take. What goes wrong in the
    deployment is in the proof; a StackproofError is raised only for what could not be tried at all.
    """
    chosen = subjects(tenants, stack.tenants)
    absent: dict[str, list[str]] = {}
    for api in apis:
        if api.signal in signals and not api.excluded:
            absent.setdefault(stack.not_compared(api), []).append(api.id)
    asked = absent.pop("", [])
    rows = tuple(api for api in apis if api.id in asked)
    # What nobody would read back is not sent: nothing could be said of it.
    wanted = tuple(signal for signal in Signal if signal in {api.signal for api in rows})
    if not rows:
        why = "; ".join(f"{', '.join(ids)}: {reason}" for reason, ids in absent.items())
        raise UsageError(
            f"no read API is left to ask{why and f' ({why})'}",
            where=stack.name,
            todo="Ask others, or all: --apis.",
        )
    # A backend that is slow, as all are asked at once, gets no further by being asked anew.
    with Client(connections=_WORKERS, timeout_s=max(_TIMEOUT_S, deadline_s / 3)) as client:
        observer = Observer(stack, chosen, wanted, client, deadline_s)
        for reason, left_out in absent.items():
            observer.note(f"not compared: {', '.join(left_out)}: {reason}")
        entered = entry_point or stack.entry_points[0]
        return _Run(observer, wanted, rows, entered, on_progress, pins).prove()


def subjects(tenants: Sequence[str] | None, deployed: Sequence[str]) -> tuple[str, ...]:
    """Return the tenants to prove, each once; all that are deployed where none are named.

    Raises:
        UsageError: One is unknown, or there are not two to be kept apart.
    """
    chosen = tuple(dict.fromkeys(deployed if tenants is None else tenants))
    check_names("tenant", chosen, deployed, "--tenants")
    if len(chosen) < 2:
        raise UsageError(
            f"there is nobody to keep {chosen[0]} apart from" if chosen else "there are none",
            where="tenants",
            todo=f"Name two or more. Deployed are: {', '.join(deployed) or 'none'}.",
        )
    return chosen


def pairs(tenants: Sequence[str]) -> frozenset[tuple[str, str]]:
    """Return the pairs (reader, owner) that pairwise APIs are asked about."""
    count = len(tenants)
    if count <= PAIRWISE_LIMIT:
        steps: Sequence[int] = range(1, count)
    else:
        steps = [1 + count * sample // PAIRWISE_SAMPLE for sample in range(PAIRWISE_SAMPLE)]
    return frozenset(
        (reader, tenants[(index + step) % count])
        for index, reader in enumerate(tenants)
        for step in steps
    )


class _Run:
    """One run: telemetry, controls, and what is asked once all controls of an API are over."""

    def __init__(
        self,
        observer: Observer,
        signals: tuple[Signal, ...],
        apis: tuple[ReadApi, ...],
        entry_point: EntryPoint,
        on_progress: Callable[[Progress], None] | None,
        pins: Versions | None,
    ) -> None:
        self.observer = observer
        self.stack = observer.stack
        self.tenants = observer.tenants
        self.emissions = observer.emissions
        self.signals = signals
        self.apis = apis
        self.entry_point = entry_point
        self.on_progress = on_progress
        self.pins = pins
        self.started = datetime.now(UTC)
        self.began = time.monotonic()
        self.pairs = pairs(self.tenants) if any(api.pairwise for api in apis) else frozenset()
        # Only what shows names of labels needs a label whose name is a token.
        self.labels = any((api.backend, api.shows) == (Backend.LOKI, "label name") for api in apis)
        comparable = data_sources.checkable(observer)
        self.sources = self.stack.views() if comparable else ()
        self.controls: dict[tuple[str, str], Observation] = {}
        self.absences: dict[tuple[str, str, str], Observation] = {}
        self.leaks: list[Observation] = []
        self.timings: dict[str, float] = {}
        self._unsent = len(self.tenants)
        self._exports = 0
        self._waiting = {api.id: len(self.tenants) for api in apis}
        self._windows: dict[str, Window] = {}
        self._soonest_ms = {api.id: float("inf") for api in apis}
        self._next_health = 0.0
        self._last_call = float("inf")
        self.schedule = Schedule(_WORKERS)

    # --- phases -----------------------------------------------------------------------------------

    def prove(self) -> Proof:
        left = [signal for signal in Signal if signal not in self.signals]
        if left:
            self.observer.note(f"{', '.join(left)}: not compared, no read API of theirs was asked")
        fallback_tenants.note_left_out(self.observer, self.apis)
        data_sources.note_left_out(self.observer, self.apis)
        if self.entry_point is EntryPoint.GATEWAY:
            self.observer.note(
                "telemetry went to the gateway directly, with each tenant's password"
            )
        self._watch()
        for lane in range(min(_CONCURRENT_SENDERS, len(self.tenants))):
            self.schedule.add(self._emission(lane))
        self.schedule.run(self._watch)
        self.timings["proof_s"] = time.monotonic() - self.began
        self._note_health()
        seen = self._observations()
        for signal in single_tenant(seen):
            self.observer.note(
                f"every tenant reads all others' {signal}: {BACKEND_OF[signal]} keeps a single "
                "tenant (multitenancy_enabled or auth_enabled is false), or all have one header"
            )
        return self._proof(seen, judge(seen))

    def _observations(self) -> Observations:
        return Observations(
            tenants=self.tenants,
            apis=self.apis,
            controls=self.controls,
            absences=self.absences,
            leaks=self.leaks,
            pairs=self.pairs,
            faults=self.observer.violations,
            health=tuple(self.observer.health),
        )

    def _proof(self, seen: Observations, judgement: Judgement) -> Proof:
        isolated = judgement.verdict is Verdict.ISOLATED
        return Proof(
            run_id=self.observer.run_id,
            started=self.started,
            duration_s=time.monotonic() - self.began,
            deadline_s=self.observer.deadline_s,
            stack=self.stack.name,
            provider=self.stack.provider,
            programs=programs.running(self.observer, self.pins),
            tenants=self.tenants,
            signals=self.signals,
            entry_point=self.entry_point,
            verdict=judgement.verdict,
            matrix=judgement.matrix,
            apis=judgement.apis,
            violations=judgement.violations,
            checks=tuple(sorted(self.observer.findings, key=lambda one: (one.name, one.about))),
            health=tuple(self.observer.health),
            notes=tuple(self.observer.notes),
            log_errors=() if isolated else tuple(self.stack.log_errors()),
            emissions=self.emissions,
            observations=seen,
            timings=self.timings,
            requests=self.observer.requests,
            exports=self._exports,
            memory=dict(self.stack.memory()),
        )

    def _watch(self) -> None:
        """Report progress, and stop waiting for anything once a component is dead."""
        if self.on_progress is not None:
            self.on_progress(self._progress())
        if time.monotonic() >= self._next_health:
            self._note_health()
            self._next_health = time.monotonic() + _HEALTH_S

    def _progress(self) -> Progress:
        waiting = any(self._waiting.values())
        phase = "telemetry" if self._unsent else "controls" if waiting else "absence"
        tenants = len(self.tenants)
        asked = sum(len(self.pairs) for api in self.apis if api.pairwise)
        expected = tenants * (1 + 2 * len(self.apis)) + asked
        total = max(expected, self.schedule.total)
        return Progress(phase, self.schedule.done, total, tenants - self._unsent)

    def _note_health(self) -> None:
        for problem in self.stack.health():
            self.observer.health[problem] = None
            self._last_call = 0.0

    # --- 1. telemetry -----------------------------------------------------------------------------

    def _emission(self, index: int) -> Task:
        """Make a task that sends a tenant's telemetry, then queues its controls and the next."""
        tenant = self.tenants[index]
        emission = self.emissions[tenant]
        waiting = list(self.signals)
        ends = 0.0

        def task() -> float | None:
            nonlocal ends
            if not ends:  # its turn has come
                ends = time.monotonic() + min(_RESEND_S, self.observer.deadline_s)
                self.emissions[tenant] = replace(emission, sent_ns=time.time_ns())
            with self.stack.sender(tenant, self.entry_point, self.observer.client) as exporter:
                waiting[:] = [
                    each for each in waiting if not self._sent(exporter, tenant, each, ends)
                ]
            if waiting:
                return _RESEND_PAUSE_S
            self._after_emission(tenant)
            if index + _CONCURRENT_SENDERS < len(self.tenants):
                self.schedule.add(self._emission(index + _CONCURRENT_SENDERS))
            return None

        return task

    def _after_emission(self, tenant: str) -> None:
        with self.observer.lock:
            self._unsent -= 1
            if not self._unsent:
                self.timings["telemetry_s"] = time.monotonic() - self.began
        for api in self.apis:
            # To look sooner than it ever was there would only keep the backend from its work.
            soonest = self._soonest_ms[api.id] / 1000
            waited = time.monotonic() - self.emissions[tenant].taken[api.signal]
            wait = _PATIENT * soonest - waited if soonest < float("inf") else 0.0
            self.schedule.add(self._control(api, tenant), after_s=max(wait, 0.0))

    def _sent(self, exporter: senders.Sender, tenant: str, signal: Signal, ends: float) -> bool:
        """Send one signal; return whether that is settled, for good or for ill.

        What a real exporter would send again (a receiver that is busy) is sent again until `ends`.
        """
        emission = self.emissions[tenant]
        refused: ExportError | None = None
        try:
            exporter.send(signal, synthetic.make(emission, signal))
            with self.observer.lock:
                self._exports += 1
            if signal is Signal.LOGS and self.labels and self.entry_point is not EntryPoint.TARGETS:
                senders.push_label(
                    self.observer.readers[tenant], emission, self.observer.client.pool
                )
        except ExportError as error:
            if error.retryable and not self.observer.cut_short and time.monotonic() < ends:
                return False
            refused = error
        taken = {**emission.taken, signal: time.monotonic()}
        self.emissions[tenant] = replace(emission, taken=taken)
        if refused is not None:
            message = f"{tenant}'s {signal} were not taken: {refused}"
            self.observer.violated(
                Violation(
                    kind=ViolationKind.MISSING,
                    api="export",
                    reader=tenant,
                    owners=(tenant,),
                    message=message,
                    signal=signal,
                )
            )
        return True

    # --- 2. and 3. control and absence ------------------------------------------------------------

    def _look(self, api: ReadApi, reader: str, asked: str) -> Observation:
        reading = self.observer.readers[reader]
        answer = self.observer.ask(api, reading, asked, self._windows.get(api.id))
        since = time.monotonic() - self.emissions[reader].taken[api.signal]
        seen = observe(api, reader, asked, answer, self.observer.marks, latency_ms=since * 1000)
        if seen.others:
            with self.observer.lock:
                self.leaks.append(seen)
                self._last_call = min(self._last_call, time.monotonic() + _AFTER_LEAK_S)
        return seen

    def _until(self, attempt: Callable[[], bool]) -> Task:
        """Make a task that tries until it succeeds or its time is up."""
        pause, longest = _POLL_S
        ends = 0.0

        def task() -> float | None:
            nonlocal pause, ends
            ends = ends or time.monotonic() + self.observer.deadline_s
            if attempt() or time.monotonic() + pause > min(ends, self._last_call):
                return None
            wait, pause = pause, min(pause * 1.3, longest)
            return wait

        return task

    def _control(self, api: ReadApi, tenant: str) -> Task:
        def attempt() -> bool:
            seen = self._look(api, tenant, tenant)
            self.controls[api.id, tenant] = seen
            if seen.own:
                self.observer.shown.add(api.id)
                self._soonest_ms[api.id] = min(self._soonest_ms[api.id], seen.latency_ms)
            return seen.own

        def after() -> None:
            with self.observer.lock:
                self._waiting[api.id] -= 1
                last = self._waiting[api.id] == 0
            if last:
                self._after_controls(api)

        return _followed(self._until(attempt), after)

    def _after_controls(self, api: ReadApi) -> None:
        if self.observer.cut_short:
            self.observer.note("cut short: a component was dead, nothing was checked after it")
            return
        # All readers ask byte for byte the same, the first before the others: so a cache that they
        # share shows them what the first has seen.
        self._windows[api.id] = window(*self.emissions.values())
        first, *others = self.tenants

        def after() -> None:
            for reader in others:
                self.schedule.add(self._absence(api, reader, reader))

        self.schedule.add(_followed(self._absence(api, first, first), after))
        if api.pairwise:
            for reader, owner in self.pairs:
                self.schedule.add(self._absence(api, reader, owner))
        for task in (
            *refusals.tasks(self.observer, self.apis, api),
            *fallback_tenants.tasks(self.observer, api),
            *data_sources.tasks(self.observer, api, self.sources),
        ):
            self.schedule.add(task)

    def _absence(self, api: ReadApi, reader: str, asked: str) -> Task:
        def attempt() -> bool:
            seen = self._look(api, reader, asked)
            self.absences[api.id, reader, asked] = seen
            return seen.own if asked == reader else seen.answered

        return self._until(attempt)


def _followed(task: Task, after: Callable[[], None]) -> Task:
    """Make a task that calls `after` once the other is done."""

    def run() -> float | None:
        again = task()
        if again is None:
            after()
        return again

    return run
