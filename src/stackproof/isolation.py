"""Prove that no tenant reads another's telemetry, with a control for every claim of absence.

1. Every tenant sends its signals, each marked with a token nobody can guess.
2. Control: each owner asks each read API until its own token is in the answer.
3. Absence: once *all* owners have seen theirs through an API, each reader asks it again. The body
   must hold the reader's own token and nobody else's.

The steps overlap: a tenant's controls begin when its telemetry was taken, while others still send.

A run costs one control and one read per tenant and API, so it grows linearly though it proves N²
pairs. Only APIs that are asked for one owner's data by name (a trace by its id) need a question a
pair: all pairs up to `PAIRWISE_LIMIT` tenants, `PAIRWISE_SAMPLE` owners a reader beyond it.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from stackproof import telemetry
from stackproof.backends import PROVABLE, grafana
from stackproof.backends.base import Answer, Client, Mark, Question, ReadApi
from stackproof.errors import StackproofError
from stackproof.schedule import Schedule, Task
from stackproof.stack.base import (
    STRAY_TENANTS,
    TENANT_HEADER,
    Access,
    Backend,
    Signal,
    Stack,
)
from stackproof.telemetry import Emission, ExportError
from stackproof.verdict import (
    ApiResult,
    Check,
    Judgement,
    Kind,
    Look,
    Matrix,
    Observations,
    Verdict,
    Violation,
    judge,
)

#: Up to this many tenants every ordered pair is asked on pairwise APIs.
PAIRWISE_LIMIT = 20
#: Beyond it each reader asks for the traces of this many others, spread evenly over the list.
PAIRWISE_SAMPLE = 3
#: Refusals and data sources are checked for at most this many tenants.
CHECKED_TENANTS = 20
#: How often the all-tenants view of range queries is repeated: loki#24310 loses data now and then.
VIEW_REPEATS = 5

_WORKERS = 16
#: So many tenants send at once; the next begins when the controls of the one before are queued.
_LANES = 8
_POLL_S = (0.025, 0.1)  # first and longest pause between two looks at the same thing
#: A first look is taken no sooner than this share of the shortest wait that the API has shown.
_PATIENT = 0.8
#: What is asked once is asked again for this long while there is no answer at all: a forwarded port
#: loses a connection now and then, and silence proves nothing.
_UNANSWERED_S = 5.0
_HEALTH_S = 0.25
#: Telemetry that a busy receiver refuses is sent again for this long, and how often.
_RESEND_S, _RESEND_PAUSE_S = 5.0, 0.2
#: Once a leak is seen the verdict stands: what else is missing is waited for no longer than this.
_AFTER_LEAK_S = 2.0
_WINDOW_NS = 300 * 10**9
_AHEAD_NS = 60 * 10**9


class Door(StrEnum):
    """Where the telemetry goes in."""

    ALLOY_GRPC = "alloy-grpc"
    ALLOY_HTTP = "alloy-http"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: tasks done, and of how many (an estimate until the end is near)."""

    phase: str
    """What is not over yet: `telemetry`, then `controls`, then `absence`."""
    done: int
    total: int
    tenants: int
    """Tenants whose telemetry was sent so far."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The outcome of a run. `timings` are seconds from its start to the end of each phase.

    `emissions` and `observations` are what it rests on: who sent which tokens, and every look.
    """

    run_id: str
    started: datetime
    duration_s: float
    stack: str
    provider: str
    versions: Mapping[str, str]
    tenants: tuple[str, ...]
    signals: tuple[Signal, ...]
    door: Door
    verdict: Verdict
    matrix: Matrix
    apis: tuple[ApiResult, ...]
    violations: tuple[Violation, ...]
    checks: tuple[Check, ...]
    health: tuple[str, ...]
    notes: tuple[str, ...]
    emissions: Mapping[str, Emission]
    observations: Observations
    timings: Mapping[str, float] = field(default_factory=dict)
    requests: int = 0
    memory: Mapping[str, int] = field(default_factory=dict)
    """The most resident bytes that each component had."""
    complaints: tuple[str, ...] = ()
    """What the components' logs say, where the verdict is not `isolated`."""


def prove(
    stack: Stack,
    tenants: Sequence[str] | None = None,
    *,
    signals: Sequence[Signal] = tuple(Signal),
    apis: Sequence[ReadApi] = PROVABLE,
    deadline_s: float = 30.0,
    door: Door = Door.ALLOY_GRPC,
    on_progress: Callable[[Progress], None] | None = None,
) -> Proof:
    """Prove the isolation of `tenants` (default: all that are deployed) on a running stack.

    `deadline_s` is what each control, and each read after it, may take. What goes wrong in the
    deployment is in the proof; a StackproofError is raised only for what could not be tried at all.
    """
    chosen = subjects(tenants, stack.tenants)
    rows = tuple(api for api in apis if api.signal in signals and not api.excluded)
    # What nobody would read back is not sent: nothing could be said of it.
    wanted = tuple(signal for signal in Signal if signal in {api.signal for api in rows})
    if not rows:
        raise StackproofError(
            "no read API to ask", where="--apis", todo="name one, or leave the option out"
        )
    with Client(connections=_WORKERS) as client:
        return _Run(stack, chosen, wanted, rows, deadline_s, door, client, on_progress).prove()


def subjects(tenants: Sequence[str] | None, deployed: Sequence[str]) -> tuple[str, ...]:
    """Return the tenants to prove, each once; all that are deployed where none are named.

    Raises:
        StackproofError: One is unknown, or there are not two to be kept apart.
    """
    chosen = tuple(dict.fromkeys(deployed if tenants is None else tenants))
    unknown = [tenant for tenant in chosen if tenant not in deployed]
    todo = f"Deployed are: {', '.join(deployed) or 'none'}."
    if unknown:
        raise StackproofError(f"unknown: {', '.join(unknown)}", where="tenants", todo=todo)
    if len(chosen) < 2:
        raise StackproofError(
            f"there is nobody to keep {chosen[0]} apart from" if chosen else "there are none",
            where="tenants",
            todo=f"Name two or more. {todo}",
        )
    return chosen


def sender(stack: Stack, tenant: str, door: Door, client: Client) -> telemetry.Sender:
    """Return what sends this tenant's telemetry through `door`; HTTP shares the client's pool."""
    if door is Door.ALLOY_GRPC:
        return telemetry.GrpcSender(stack.otlp_grpc(tenant))
    if door is Door.ALLOY_HTTP:
        return telemetry.HttpSender(stack.otlp_http(tenant), pool=client.pool)
    if stack.gateway_url is None:
        raise StackproofError(
            "the deployment has no gateway to send through",
            where=f"stack {stack.name}",
            todo="send through the tenants' Alloys",
        )
    access = stack.reader(tenant)
    return telemetry.HttpSender(
        f"{stack.gateway_url}/otlp", auth=access.auth, headers=access.headers, pool=client.pool
    )


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


def question(emission: Emission) -> Question:
    """Ask for all that the emission's run has sent, and for this emission's trace."""
    # The end lies ahead, for clocks that differ and for what was rounded to full seconds.
    return Question(
        emission.run,
        emission.sent_ns - _WINDOW_NS,
        time.time_ns() + _AHEAD_NS,
        emission.trace_id,
    )


class Marks:
    """Finds in a body whose tokens (or trace ids) it holds, in time linear in the body."""

    def __init__(self, emissions: Mapping[str, Emission]) -> None:
        self._owners = {
            token.encode("ascii"): (tenant, signal)
            for tenant, emission in emissions.items()
            for signal, token in emission.tokens.items()
        }
        self._traces = {
            emission.trace_id.encode("ascii"): (tenant, Signal.TRACES)
            for tenant, emission in emissions.items()
        }
        self._token = re.compile(telemetry.TOKEN_PATTERN)
        # The lookahead finds an id wherever it starts within a longer run of digits.
        self._trace = re.compile(rb"(?=([0-9a-f]{32}))")

    def find(self, body: bytes, mark: Mark = Mark.TOKEN) -> dict[bytes, tuple[str, Signal]]:
        """Return the marks in `body` that are of this run, each with its owner and signal."""
        found = {
            token: self._owners[token]
            for token in set(self._token.findall(body))
            if token in self._owners
        }
        if mark is Mark.TRACE_ID:
            found |= {
                trace: self._traces[trace]
                for trace in set(self._trace.findall(body))
                if trace in self._traces
            }
        return found


def look(
    api: ReadApi, reader: str, asked: str, answer: Answer, marks: Marks, *, latency_ms: float = 0.0
) -> Look:
    """Say what one answer shows: the reader's own token, other tenants' tokens, or nothing."""
    found = marks.find(answer.body, api.mark)
    others = {mark: owner for mark, (owner, _) in found.items() if owner != reader}
    return Look(
        api=api.id,
        reader=reader,
        asked=asked,
        own=(reader, api.signal) in found.values(),
        others=frozenset(others.values()),
        # An empty answer or a 404 says "nothing here"; a server's error says nothing.
        answered=not answer.error and answer.status in {200, 404},
        request=answer.request,
        answer=_around(answer.body, min(others)) if others else answer.describe(),
        elapsed_ms=answer.elapsed_ms,
        latency_ms=latency_ms,
    )


def _around(body: bytes, mark: bytes, context: int = 120) -> str:
    at = body.index(mark)
    begin, end = max(0, at - context), at + len(mark) + context
    text = body[begin:end].decode("utf-8", "replace")
    return f"{'… ' if begin else ''}{text}{' …' if end < len(body) else ''}"


class _Run:
    """One run: what it knows, and the tasks that find out more."""

    def __init__(
        self,
        stack: Stack,
        tenants: tuple[str, ...],
        signals: tuple[Signal, ...],
        apis: tuple[ReadApi, ...],
        deadline_s: float,
        door: Door,
        client: Client,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.stack = stack
        self.tenants = tenants
        self.signals = signals
        self.apis = apis
        self.deadline_s = deadline_s
        self.door = door
        self.client = client
        self.on_progress = on_progress
        self.run_id = telemetry.new_run()
        self.started = datetime.now(UTC)
        self.began = time.monotonic()
        self.readers = {tenant: stack.reader(tenant) for tenant in tenants}
        # All tokens are known before the first is sent: whatever is read is searched for all.
        self.emissions = {
            tenant: telemetry.new_emission(tenant, self.run_id, signals) for tenant in tenants
        }
        self.marks = Marks(self.emissions)
        self.pairs = pairs(tenants) if any(api.pairwise for api in apis) else frozenset()
        # Only what shows names of labels needs a label whose name is a token.
        self.labels = any((api.backend, api.shows) == (Backend.LOKI, "label name") for api in apis)
        self.views = len(tenants) <= CHECKED_TENANTS and set(tenants) == set(stack.tenants)
        self.sources = grafana.sources(stack.data_sources()) if self.views else ()
        self.controls: dict[tuple[str, str], Look] = {}
        self.absences: dict[tuple[str, str, str], Look] = {}
        self.leaks: list[Look] = []
        self.faults: list[Violation] = []
        self.checks: list[Check] = []
        self.notes: list[str] = []
        self.health: dict[str, None] = {}
        self.timings: dict[str, float] = {}
        self.requests = 0
        self._lock = threading.Lock()
        self._unsent = len(tenants)
        self._waiting = {api.id: len(tenants) for api in apis}
        self._soonest_ms = {api.id: float("inf") for api in apis}
        self._next_health = 0.0
        self._last_call = float("inf")
        self.schedule = Schedule(_WORKERS)

    # --- phases -----------------------------------------------------------------------------------

    def prove(self) -> Proof:
        left = [signal for signal in Signal if signal not in self.signals]
        if left:
            self._note(f"{', '.join(left)}: not compared, no read API of theirs was asked")
        if self.door is Door.GATEWAY:
            self._note("telemetry went straight to the gateway, with each tenant's own password")
        self._watch()
        for lane in range(min(_LANES, len(self.tenants))):
            self.schedule.add(self._emission(lane))
        self.schedule.run(self._watch)
        self.timings["proof_s"] = time.monotonic() - self.began
        self._note_health()
        seen = self._observations()
        return self._proof(seen, judge(seen))

    def _observations(self) -> Observations:
        return Observations(
            self.tenants,
            self.apis,
            self.controls,
            self.absences,
            self.leaks,
            self.pairs,
            self.faults,
            tuple(self.health),
        )

    def _proof(self, seen: Observations, judgement: Judgement) -> Proof:
        return Proof(
            run_id=self.run_id,
            started=self.started,
            duration_s=time.monotonic() - self.began,
            stack=self.stack.name,
            provider=self.stack.provider,
            versions=dict(self.stack.versions),
            tenants=self.tenants,
            signals=self.signals,
            door=self.door,
            verdict=judgement.verdict,
            matrix=judgement.matrix,
            apis=judgement.apis,
            violations=judgement.violations,
            checks=tuple(sorted(self.checks, key=lambda check: (check.name, check.about))),
            health=tuple(self.health),
            notes=tuple(self.notes),
            complaints=self._complaints(judgement),
            emissions=self.emissions,
            observations=seen,
            timings=self.timings,
            requests=self.requests,
            memory=dict(self.stack.memory()),
        )

    def _complaints(self, judgement: Judgement) -> tuple[str, ...]:
        isolated = judgement.verdict is Verdict.ISOLATED
        return () if isolated else tuple(self.stack.complaints())

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
            self.health[problem] = None
            self._last_call = 0.0

    @property
    def _cut_short(self) -> bool:
        """Whether a component is dead, so that nothing more can be proven."""
        return bool(self.health)

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
                ends = time.monotonic() + min(_RESEND_S, self.deadline_s)
                self.emissions[tenant] = replace(emission, sent_ns=time.time_ns())
            with sender(self.stack, tenant, self.door, self.client) as door:
                waiting[:] = [each for each in waiting if not self._sent(door, tenant, each, ends)]
            if waiting:
                return _RESEND_PAUSE_S
            self._after_emission(tenant)
            if index + _LANES < len(self.tenants):
                self.schedule.add(self._emission(index + _LANES))
            return None

        return task

    def _after_emission(self, tenant: str) -> None:
        with self._lock:
            self._unsent -= 1
            if not self._unsent:
                self.timings["telemetry_s"] = time.monotonic() - self.began
        for api in self.apis:
            # To look sooner than it ever was there would only keep the backend from its work.
            soonest = self._soonest_ms[api.id] / 1000
            waited = time.monotonic() - self.emissions[tenant].taken[api.signal]
            wait = _PATIENT * soonest - waited if soonest < float("inf") else 0.0
            self.schedule.add(self._control(api, tenant), after_s=max(wait, 0.0))

    def _sent(self, door: telemetry.Sender, tenant: str, signal: Signal, ends: float) -> bool:
        """Send one signal; return whether that is settled, for good or for ill.

        What a real exporter would send again (a receiver that is busy) is sent again until `ends`.
        """
        emission = self.emissions[tenant]
        refused: ExportError | None = None
        try:
            door.send(signal, telemetry.make(emission, signal))
            if signal is Signal.LOGS and self.labels:
                telemetry.push_label(self.readers[tenant], emission, self.client.pool)
        except ExportError as error:
            if error.retryable and not self._cut_short and time.monotonic() < ends:
                return False
            refused = error
        taken = {**emission.taken, signal: time.monotonic()}
        self.emissions[tenant] = replace(emission, taken=taken)
        if refused is not None:
            message = f"{tenant}'s {signal} were not taken: {refused}"
            self._fault(Violation(Kind.MISSING, "export", tenant, (tenant,), message, signal))
        return True

    def _fault(self, violation: Violation) -> None:
        with self._lock:
            self.faults.append(violation)

    # --- 2. and 3. control and absence ------------------------------------------------------------

    def _ask(self, api: ReadApi, access: Access, owner: str) -> Answer:
        emission = self.emissions[owner]
        self.requests += 1
        return self.client.ask(api, access, question(emission))

    def _ask_once(self, api: ReadApi, access: Access, owner: str) -> Answer:
        """Ask for a check that takes the first answer, whatever it is."""
        ends = time.monotonic() + min(_UNANSWERED_S, self.deadline_s)
        while True:
            answer = self._ask(api, access, owner)
            if not answer.error or self._cut_short or time.monotonic() > ends:
                return answer
            time.sleep(_POLL_S[1])

    def _look(self, api: ReadApi, reader: str, asked: str) -> Look:
        answer = self._ask(api, self.readers[reader], asked)
        since = time.monotonic() - self.emissions[reader].taken[api.signal]
        seen = look(api, reader, asked, answer, self.marks, latency_ms=since * 1000)
        if seen.others:
            with self._lock:
                self.leaks.append(seen)
                self._last_call = min(self._last_call, time.monotonic() + _AFTER_LEAK_S)
        return seen

    def _until(self, attempt: Callable[[], bool]) -> Task:
        """Make a task that tries until it succeeds or its time is up."""
        pause, longest = _POLL_S
        ends = 0.0

        def task() -> float | None:
            nonlocal pause, ends
            ends = ends or time.monotonic() + self.deadline_s
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
                self._soonest_ms[api.id] = min(self._soonest_ms[api.id], seen.latency_ms)
            return seen.own

        until = self._until(attempt)

        def task() -> float | None:
            again = until()
            if again is None:
                with self._lock:
                    self._waiting[api.id] -= 1
                    last = self._waiting[api.id] == 0
                if last:
                    self._after_controls(api)
            return again

        return task

    def _after_controls(self, api: ReadApi) -> None:
        if self._cut_short:
            self._note("cut short: a component was dead, what came after it was not checked")
            return
        for reader in self.tenants:
            self.schedule.add(self._absence(api, reader, reader))
        if api.pairwise:
            for reader, owner in self.pairs:
                self.schedule.add(self._absence(api, reader, owner))
        self._add_refusals(api)
        self._add_strays(api)
        self._add_views(api)

    def _absence(self, api: ReadApi, reader: str, asked: str) -> Task:
        def attempt() -> bool:
            seen = self._look(api, reader, asked)
            self.absences[api.id, reader, asked] = seen
            return seen.own if asked == reader else seen.answered

        return self._until(attempt)

    # --- further checks ---------------------------------------------------------------------------

    def _check(self, check: Check, violation: Violation | None = None) -> None:
        with self._lock:
            self.checks.append(check)
            if violation is not None:
                self.faults.append(violation)

    def _note(self, note: str) -> None:
        with self._lock:
            if note not in self.notes:
                self.notes.append(note)

    def _add_refusals(self, api: ReadApi) -> None:
        if self.stack.gateway_url is None:
            self._note("refusals: not checked, the deployment has no gateway")
            return
        if len(self.tenants) > CHECKED_TENANTS:
            self._note(f"refusals: checked for the first {CHECKED_TENANTS} tenants only")
        checked = self.tenants[:CHECKED_TENANTS]
        # The header is what tells tenants apart: every reader tries it on every API. The other
        # intruders take turns, so that each reader tries each of them on some API.
        turn = self.apis.index(api)
        for index, tenant in enumerate(checked):
            other = self.tenants[(index + 1) % len(self.tenants)]
            for number, (name, access) in enumerate(intruders(self.readers[tenant], other).items()):
                if name == _EVERYWHERE or (turn + number) % len(checked) == index:
                    self.schedule.add(self._refusal(api, tenant, other, name, access))

    def _refusal(self, api: ReadApi, tenant: str, other: str, name: str, access: Access) -> Task:
        def ask() -> None:
            answer = self._ask_once(api, access, other)
            about = f"{api.id} as {tenant}"
            shown = self.marks.find(answer.body, api.mark)
            refused = not answer.error and answer.status in {401, 403}
            if refused and not shown:
                self._check(Check(f"refused: {name}", about, True, f"HTTP {answer.status}"))
                return
            seen = sorted({owner for owner, _ in shown.values()})
            detail = f"shows {', '.join(seen)}" if seen else answer.describe()
            got = answer.error or f"HTTP {answer.status}"
            self._check(
                Check(f"refused: {name}", about, False, detail),
                Violation(
                    # Without an answer nothing was let in, but nothing was proven either.
                    Kind.MISSING
                    if answer.error or (answer.status or 0) >= 500
                    else Kind.NOT_REFUSED,
                    api.id,
                    tenant,
                    tuple(seen) or (other,),
                    f"{api.id} with {name} was answered with {got} instead of 401 or 403",
                    api.signal,
                    answer.request.line(),
                    answer.request.curl(access.auth[0] if access.auth else None),
                    _around(answer.body, min(shown)) if shown else answer.describe(),
                ),
            )

        return ask

    def _add_strays(self, api: ReadApi) -> None:
        if api.id not in _STRAY_APIS:
            return
        if not self.stack.disposable:
            self._note("stray tenants: not checked, backends are read through the gateway only")
            return
        for stray in STRAY_TENANTS:
            if not stray and api.backend is Backend.TEMPO:
                self._note("stray tenants: Tempo answers no read for the empty tenant")
                continue
            self.schedule.add(self._stray(api, stray))

    def _direct(self, api: ReadApi, tenant: str) -> Access:
        url = self.stack.backend_url(api.backend)
        # No header names the empty tenant; a list with one empty member does.
        value = tenant or f"stackproof-{self.run_id}|"
        return Access(f"backend as {tenant!r}", {api.backend: url}, None, {TENANT_HEADER: value})

    def _stray(self, api: ReadApi, stray: str) -> Task:
        owner = self.tenants[0]

        def ask() -> None:
            about = f"{api.backend} as {stray!r}"
            # The same way shows the owner's data under the owner's name: it would show it here.
            control = self.marks.find(self._ask_once(api, self._direct(api, owner), owner).body)
            answer = self._ask_once(api, self._direct(api, stray), owner)
            shown = self.marks.find(answer.body, api.mark)
            owners = tuple(sorted({each for each, _ in shown.values()}))
            name = "stray tenant"
            if shown:
                self._check(
                    Check(name, about, False, f"holds data of {', '.join(owners)}"),
                    Violation(
                        Kind.STRAY,
                        api.id,
                        stray,
                        owners,
                        f"{api.backend} keeps {', '.join(owners)}'s {api.signal} under the "
                        f"tenant {stray!r}",
                        api.signal,
                        answer.request.line(),
                        answer.request.curl(None),
                        _around(answer.body, min(shown)),
                    ),
                )
            elif not control or answer.error or answer.status != 200:
                self._check(
                    Check(name, about, False, answer.describe()),
                    Violation(
                        Kind.MISSING,
                        api.id,
                        stray,
                        (owner,),
                        f"{api.backend} could not be searched for strays under {stray!r}",
                        api.signal,
                        answer.request.line(),
                        answer.request.curl(None),
                        answer.describe() if control else f"{owner} itself is not seen either",
                    ),
                )
            else:
                self._check(Check(name, about, True, "holds nothing of the run"))

        return ask

    def _add_views(self, api: ReadApi) -> None:
        if api.pairwise or not api.federated:
            return
        if not self.views:
            self._note(
                "Grafana's data sources: not checked, only with all tenants and at most "
                f"{CHECKED_TENANTS} of them"
            )
            return
        for source in self.sources:
            if source.backend is api.backend:
                self.schedule.add(self._view(api, source))

    def _view(self, api: ReadApi, source: grafana.DataSource) -> Task:
        expected = source.expected(self.tenants)
        repeats = VIEW_REPEATS if len(expected) > 1 and "range" in api.id else 1

        def ask() -> None:
            answer: Answer | None = None
            shown: frozenset[str] = frozenset()
            for _ in range(repeats):
                answer = self._ask_once(api, source.access, self.tenants[0])
                found = self.marks.find(answer.body, api.mark).values()
                shown = frozenset(owner for owner, _ in found)
                if shown != expected:
                    break
            name, about = f"data source {source.uid}", api.id
            if answer is None or shown == expected:
                self._check(Check(name, about, True, f"shows {', '.join(sorted(shown))}"))
                return
            lacks, extra = sorted(expected - shown), sorted(shown - expected)
            detail = "; ".join(
                f"{word} {', '.join(names)}"
                for word, names in (("lacks", lacks), ("shows also", extra))
                if names
            )
            self._check(
                Check(name, about, False, detail),
                Violation(
                    Kind.LEAK if extra else Kind.VIEW,
                    api.id,
                    f"Grafana {source.uid}",
                    tuple(extra or lacks),
                    f"data source {source.uid} ({source.header!r}) through {api.id} {detail}",
                    api.signal,
                    answer.request.line(),
                    answer.request.curl(source.access.auth[0] if source.access.auth else None),
                    answer.describe(),
                ),
            )

        return ask


#: The intruder that is tried by every reader on every API.
_EVERYWHERE = "another tenant's header"

#: The APIs by which strays are sought, one for each backend.
_STRAY_APIS = frozenset({"mimir.query", "loki.query-range", "tempo.search-traceql"})


def intruders(reader: Access, other: str) -> dict[str, Access]:
    """Return the ways in which somebody who may not read might try, each with its name."""
    name = reader.auth[0] if reader.auth else reader.name
    own = {key: value for key, value in reader.headers.items() if key != TENANT_HEADER}
    return {
        "no credential": replace(reader, auth=None, headers=own),
        "no credential but a tenant header": replace(
            reader, auth=None, headers={**own, TENANT_HEADER: other}
        ),
        "a wrong password": replace(
            reader, auth=(name, f"wrong-{secrets.token_hex(8)}"), headers=own
        ),
        _EVERYWHERE: replace(reader, headers={**own, TENANT_HEADER: other}),
        "a list of tenants": replace(reader, headers={**own, TENANT_HEADER: f"{name}|{other}"}),
    }
