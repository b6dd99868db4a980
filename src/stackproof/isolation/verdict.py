"""From what was observed to what it proves. Nothing here sends a request.

The rules, in the order in which they win:

* a body that holds a token of somebody else is a leak, in whichever phase it was read;
* a request that had to be refused and was not makes the verdict `leaking` as well, and so does
  telemetry found under a fallback tenant;
* an owner that did not see its own token makes nothing "hidden": what depends on that control is
  `unknown`, and the verdict `incomplete`;
* without a leak, a component that was unhealthy makes the verdict `incomplete`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from stackproof.backends.base import ReadApi, Request
from stackproof.model import Signal


class Verdict(StrEnum):
    """What a run of the proof comes to."""

    ISOLATED = "isolated"
    LEAKING = "leaking"
    INCOMPLETE = "incomplete"

    @property
    def exit_code(self) -> int:
        """0 isolated, 1 leaking, 2 incomplete."""
        return list(Verdict).index(self)


class Observed(StrEnum):
    """What one cell of the matrix shows. Expected is `visible` or `hidden`, never `unknown`."""

    VISIBLE = "visible"
    HIDDEN = "hidden"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One reader has asked one question and read the whole answer.

    `asked` is the owner whose data was asked for by name, or the reader itself. `own`: the body
    holds the reader's own token. `others`: the other tenants whose tokens it holds. `answered` is
    false where nothing came back that says anything (no connection, a server's error).
    `latency_ms` is the time since the reader's telemetry was acknowledged.
    """

    api: str
    reader: str
    asked: str
    own: bool
    others: frozenset[str]
    answered: bool
    request: Request
    answer: str
    elapsed_ms: float
    latency_ms: float = 0.0


class ViolationKind(StrEnum):
    """Kinds of violations."""

    LEAK = "leak"
    NOT_REFUSED = "not refused"
    FALLBACK = "fallback tenant"
    VIEW = "wrong view"
    MISSING = "missing"

    @property
    def leaking(self) -> bool:
        """Whether it shows data to somebody, rather than leaving something unproven."""
        return self in {ViolationKind.LEAK, ViolationKind.NOT_REFUSED, ViolationKind.FALLBACK}


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """Something that must not happen, with all that is needed to see it again.

    `owners` are those whose data it is about; `request` has no password, `curl` leaves it to
    `$PASSWORD`; `answer` is an excerpt of the body.
    """

    kind: ViolationKind
    api: str
    reader: str
    owners: tuple[str, ...]
    message: str
    signal: Signal | None = None
    request: str = ""
    curl: str = ""
    answer: str = ""

    @classmethod
    def through(
        cls,
        api: ReadApi,
        kind: ViolationKind,
        reader: str,
        owners: Iterable[str],
        message: str,
        request: Request | None,
        answer: str,
    ) -> Violation:
        """Return what was seen through a read API, with the request that shows it again."""
        return cls(
            kind=kind,
            api=api.id,
            reader=reader,
            owners=tuple(owners),
            message=message,
            signal=api.signal,
            request=request.line() if request else "",
            curl=request.curl() if request else "",
            answer=answer,
        )

    def __str__(self) -> str:
        about = f"{self.kind}: {self.message}"
        parts = [about, self.request and f"request: {self.request}"]
        parts.append(self.answer and f"answer: {self.answer}")
        return "\n  ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a further check has found: a refusal, a fallback tenant, a data source.

    `kind` is the kind of violation; None where all is as it must be.
    """

    name: str
    about: str
    detail: str = ""
    kind: ViolationKind | None = None

    @property
    def ok(self) -> bool:
        """Whether all is as it must be."""
        return self.kind is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one reader sees of one owner's signal, over all read APIs.

    `latency_ms`: for the owner itself from the acknowledged export to the answer of the slowest
    API that shows it; for others the duration of the slowest answer.
    """

    reader: str
    owner: str
    signal: Signal
    expected: Observed
    observed: Observed
    latency_ms: float | None


@dataclass(frozen=True, slots=True)
class ApiResult:
    """One read API over all readers: times in milliseconds."""

    api: str
    signal: Signal
    shows: str
    pairwise: bool
    controls: int
    reads: int
    leaks: int
    missing: int
    visible_p50_ms: float
    visible_max_ms: float
    answer_p50_ms: float
    answer_max_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """All that a run has seen; :func:`judge` says what it means.

    `controls`: for each API and owner the last look of the owner at its own data.
    `absences`: for each API, reader and asked owner the last look after all controls.
    `leaks`: every look, of either phase, with somebody else's token in it.
    `pairs`: the pairs (reader, owner) that pairwise APIs had to ask.
    `faults`: violations beyond the matrix, and exports that were refused.
    """

    tenants: tuple[str, ...]
    apis: tuple[ReadApi, ...]
    controls: Mapping[tuple[str, str], Observation]
    absences: Mapping[tuple[str, str, str], Observation]
    leaks: Sequence[Observation]
    pairs: frozenset[tuple[str, str]]
    faults: Sequence[Violation] = ()
    health: Sequence[str] = ()


def _own(look: Observation | None) -> bool:
    return look is not None and look.own


def through(seen: Observations, api: ReadApi, reader: str, owner: str) -> Observed:
    """Return what `reader` has seen of `owner`'s data through one API."""
    if any(
        look.api == api.id and look.reader == reader for look in seen.leaks if owner in look.others
    ):
        return Observed.VISIBLE
    control = seen.controls.get((api.id, owner))
    again = seen.absences.get((api.id, reader, reader))
    proven = _own(control) and _own(again)
    if reader == owner:
        return Observed.VISIBLE if proven else Observed.HIDDEN
    if api.pairwise:
        answer = seen.absences.get((api.id, reader, owner))
        proven = proven and answer is not None and answer.answered
    return Observed.HIDDEN if proven else Observed.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Tenants by tenants by signals, kept as exceptions so that a thousand tenants fit.

    A cell is as expected unless it is in `leaks` or one of its two tenants is in `unseen` (owner
    did not see its own), `unread` (reader's answers prove nothing) or the pair in `unasked`.
    """

    tenants: tuple[str, ...]
    signals: tuple[Signal, ...]
    leaks: Mapping[Signal, Mapping[str, frozenset[str]]]
    unseen: Mapping[Signal, frozenset[str]]
    unread: Mapping[Signal, frozenset[str]]
    unasked: Mapping[Signal, frozenset[tuple[str, str]]] = field(default_factory=dict)
    visible_ms: Mapping[tuple[Signal, str], float] = field(default_factory=dict)
    read_ms: Mapping[tuple[Signal, str], float] = field(default_factory=dict)

    def cell(self, reader: str, owner: str, signal: Signal) -> Cell:
        """Return one cell."""
        expected, took = Observed.HIDDEN, self.read_ms.get((signal, reader))
        if reader == owner:
            seen = owner not in self.unseen[signal]
            expected, observed = Observed.VISIBLE, Observed.VISIBLE if seen else Observed.HIDDEN
            took = self.visible_ms.get((signal, owner)) if seen else None
        elif owner in self.leaks[signal].get(reader, ()):
            observed = Observed.VISIBLE
        elif (
            owner in self.unseen[signal]
            or reader in self.unread[signal]
            or (reader, owner) in self.unasked.get(signal, ())
        ):
            observed = Observed.UNKNOWN
        else:
            observed = Observed.HIDDEN
        return Cell(
            reader=reader,
            owner=owner,
            signal=signal,
            expected=expected,
            observed=observed,
            latency_ms=took,
        )

    def cells(self) -> Iterator[Cell]:
        """Yield every cell: reader by reader, owner by owner, signal by signal."""
        for reader in self.tenants:
            for owner in self.tenants:
                for signal in self.signals:
                    yield self.cell(reader, owner, signal)

    def exceptions(self) -> Iterator[Cell]:
        """Yield the cells that are not as expected; quick where there are few."""
        everyone = frozenset(self.tenants)
        for signal in self.signals:
            unread, unseen = self.unread[signal], self.unseen[signal]
            unasked: dict[str, set[str]] = defaultdict(set)
            for reader, owner in self.unasked.get(signal, ()):
                unasked[reader].add(owner)
            for reader in self.tenants:
                odd = unseen | self.leaks[signal].get(reader, frozenset()) | unasked[reader]
                owners = everyone - {reader} | odd if reader in unread else odd
                for owner in self.tenants if len(owners) > 1 else owners:
                    if owner in owners:
                        yield self.cell(reader, owner, signal)

    def summary(self) -> dict[str, int]:
        """Count the cells: checked, visible, hidden, leaks, missing.

        `checked` are all cells; `visible` owners that see their own; `hidden` pairs proven apart;
        `leaks` pairs that are not; `missing` the rest: owners that do not see their own, and
        pairs of which nothing can be said for that reason.
        """
        checked = len(self.tenants) ** 2 * len(self.signals)
        leaks = sum(len(owners) for row in self.leaks.values() for owners in row.values())
        unseen = sum(len(owners) for owners in self.unseen.values())
        visible = len(self.tenants) * len(self.signals) - unseen
        unknown = sum(1 for cell in self.exceptions() if cell.observed is Observed.UNKNOWN)
        missing = unseen + unknown
        hidden = checked - visible - leaks - missing
        return {
            "checked": checked,
            "visible": visible,
            "hidden": hidden,
            "leaks": leaks,
            "missing": missing,
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the observations prove."""

    verdict: Verdict
    matrix: Matrix
    apis: tuple[ApiResult, ...]
    violations: tuple[Violation, ...]


def judge(seen: Observations) -> Judgement:
    """Say what the observations prove. The same observations always give the same judgement."""
    matrix = _matrix(seen)
    by_id = {api.id: api for api in seen.apis}
    # The worst first; threads found them in any order.
    order = {kind: rank for rank, kind in enumerate(ViolationKind)}
    found = (*_leak_violations(seen, by_id), *_missing_violations(seen), *seen.faults)
    violations = tuple(
        sorted(found, key=lambda each: (order[each.kind], each.api, each.reader, each.message))
    )
    if any(violation.kind.leaking for violation in violations):
        verdict = Verdict.LEAKING
    elif violations or seen.health or matrix.summary()["missing"]:
        verdict = Verdict.INCOMPLETE
    else:
        verdict = Verdict.ISOLATED
    return Judgement(verdict, matrix, tuple(_results(seen)), violations)


def single_tenant(seen: Observations) -> tuple[Signal, ...]:
    """Return the signals of which every tenant reads every other's: nothing tells them apart."""
    matrix = _matrix(seen)
    return tuple(
        signal
        for signal in matrix.signals
        if all(
            len(matrix.leaks[signal].get(reader, ())) == len(seen.tenants) - 1
            for reader in seen.tenants
        )
    )


def _matrix(seen: Observations) -> Matrix:
    signals = tuple(signal for signal in Signal if any(api.signal == signal for api in seen.apis))
    leaks: dict[Signal, dict[str, frozenset[str]]] = {signal: {} for signal in signals}
    unseen: dict[Signal, frozenset[str]] = dict.fromkeys(signals, frozenset())
    unread: dict[Signal, frozenset[str]] = dict.fromkeys(signals, frozenset())
    unasked: dict[Signal, frozenset[tuple[str, str]]] = dict.fromkeys(signals, frozenset())
    visible_ms: dict[tuple[Signal, str], float] = defaultdict(float)
    read_ms: dict[tuple[Signal, str], float] = defaultdict(float)
    by_id = {api.id: api for api in seen.apis}
    for look in seen.leaks:
        row = leaks[by_id[look.api].signal]
        row[look.reader] = row.get(look.reader, frozenset()) | look.others
    for api in seen.apis:
        signal = api.signal
        for tenant in seen.tenants:
            control = seen.controls.get((api.id, tenant))
            again = seen.absences.get((api.id, tenant, tenant))
            if control is None or not control.own:
                unseen[signal] |= {tenant}
            else:
                key = (signal, tenant)
                visible_ms[key] = max(visible_ms[key], control.latency_ms)
            if again is None or not again.own:
                # Without its own token in the same body an answer without others' proves nothing.
                unread[signal] |= {tenant}
            else:
                read_ms[signal, tenant] = max(read_ms[signal, tenant], again.elapsed_ms)
        if api.pairwise:
            for reader, owner in seen.pairs:
                answer = seen.absences.get((api.id, reader, owner))
                if answer is None or not answer.answered:
                    unasked[signal] |= {(reader, owner)}
    return Matrix(
        tenants=seen.tenants,
        signals=signals,
        leaks=leaks,
        unseen=unseen,
        unread=unread,
        unasked=unasked,
        visible_ms=visible_ms,
        read_ms=read_ms,
    )


def _leak_violations(seen: Observations, by_id: Mapping[str, ReadApi]) -> Iterator[Violation]:
    """One for each API and reader: what leaks through one request is one fault."""
    owners: dict[tuple[str, str], set[str]] = defaultdict(set)
    first: dict[tuple[str, str], Observation] = {}
    for look in seen.leaks:
        key = (look.api, look.reader)
        owners[key] |= look.others
        first.setdefault(key, look)
    for (api, reader), look in sorted(first.items()):
        whose = sorted(owners[api, reader])
        message = f"{reader} reads {_names(whose)}'s {by_id[api].signal} through {api}"
        yield Violation.through(
            by_id[api], ViolationKind.LEAK, reader, whose, message, look.request, look.answer
        )


def _missing_violations(seen: Observations) -> Iterator[Violation]:
    """One for each API and tenant that did not see its own token in time, or not again."""
    for api in seen.apis:
        for tenant in seen.tenants:
            control = seen.controls.get((api.id, tenant))
            again = seen.absences.get((api.id, tenant, tenant))
            if not _own(control):
                message = f"{tenant} does not see its own {api.signal} through {api.id}"
                yield _missing(api, tenant, tenant, message, control)
            elif not _own(again):
                message = f"{tenant} does not see its own {api.signal} any more through {api.id}"
                yield _missing(api, tenant, tenant, message, again)
        for reader, owner in sorted(seen.pairs) if api.pairwise else ():
            answer = seen.absences.get((api.id, reader, owner))
            if answer is None or not answer.answered:
                message = f"{reader} got no answer about {owner}'s {api.signal} through {api.id}"
                yield _missing(api, reader, owner, message, answer)


def _missing(
    api: ReadApi, reader: str, owner: str, message: str, last: Observation | None
) -> Violation:
    told = f"last observation: {last.answer}" if last else "never asked"
    request = last.request if last else None
    return Violation.through(api, ViolationKind.MISSING, reader, [owner], message, request, told)


def _names(names: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def median(values: Sequence[float]) -> float:
    """Return the middle value (the upper one of two), 0 for none."""
    return sorted(values)[len(values) // 2] if values else 0.0


def _results(seen: Observations) -> Iterator[ApiResult]:
    leaking: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for look in seen.leaks:
        leaking[look.api] |= {(look.reader, owner) for owner in look.others}
    answers: dict[str, list[Observation]] = defaultdict(list)
    for (api_id, _, _), look in seen.absences.items():
        answers[api_id].append(look)
    for api in seen.apis:
        controls = [seen.controls.get((api.id, tenant)) for tenant in seen.tenants]
        visible = [look.latency_ms for look in controls if look and look.own]
        took = [look.elapsed_ms for look in answers[api.id]]
        yield ApiResult(
            api=api.id,
            signal=api.signal,
            shows=api.shows,
            pairwise=api.pairwise,
            controls=len(visible),
            reads=len(took),
            leaks=len(leaking[api.id]),
            missing=len(seen.tenants) - len(visible),
            visible_p50_ms=median(visible),
            visible_max_ms=max(visible, default=0.0),
            answer_p50_ms=median(took),
            answer_max_ms=max(took, default=0.0),
        )
