"""What became of all that was sent, before and during a roll."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from stackproof.backends import PROVABLE, Client, ReadApi, poll
from stackproof.errors import StackproofError
from stackproof.isolation.delivery import Source, arrived, numbered
from stackproof.isolation.tokens import Marks, question, window
from stackproof.model import EntryPoint, Signal
from stackproof.otlp import synthetic
from stackproof.otlp.synthetic import Emission
from stackproof.stack.base import Stack
from stackproof.waiting import until

#: Tells of a signal and the time of an acknowledgement whether a known limit may have lost it.
Known = Callable[[Signal, float], bool]

#: So old is what is sent first, and over so long it is asked for. A backend that keeps less says so
#: at once: Mimir and Loki answer without what is older, Tempo refuses to search so far back. Loki
#: asks its ingesters for three hours only (`query_ingesters_within`). Spans are of now: Tempo finds
#: what is old by its id alone until its block is complete.
_AGE_S, _RANGE_S = 2 * 3600, 3 * 3600
_Look = tuple[bool | None, str]
_AGED = range(1, 4)
_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of one signal, of all tenants and through all entry points.

    Args:
        signal: Which.
        acknowledged: Items that were taken.
        lost: Of these, what is not there.
        known: What is not there either, and may be by a known limit (docs/resilience.md).
        twice: Items that are there more than once.
        misplaced: Items that a tenant reads and that are another's.
        faults: The first of each tenant, told.
    """

    signal: Signal
    acknowledged: int
    lost: int
    known: int
    twice: int
    misplaced: int
    faults: tuple[str, ...]


def settled(
    stack: Stack, client: Client, sources: Sequence[Source], known: Known, patience_s: float
) -> tuple[Delivered, ...]:
    """Wait until all that was acknowledged is there, and say what is not."""
    return until(
        lambda: tuple(_delivered(stack, client, sources, signal, known) for signal in Signal),
        lambda found: not any(each.faults for each in found),
        within_s=patience_s,
        every_s=_PAUSE_S,
    )


def _delivered(
    stack: Stack, client: Client, sources: Sequence[Source], signal: Signal, known: Known
) -> Delivered:
    sums: Counter[str] = Counter()
    faults: list[str] = []
    for source in sources:
        there, said = _there(stack, client, source, signal)
        taken = source.taken[signal]
        missing = [number for number in taken if not there[source.tenant, number]]
        lost = [number for number in missing if not known(signal, taken[number])]
        twice = [number for (_, number), times in there.items() if times > 1]
        foreign = [f"{owner}'s {number}" for owner, number in there if owner != source.tenant]
        sums.update(
            acknowledged=len(taken),
            lost=len(lost),
            known=len(missing) - len(lost),
            twice=len(twice),
            misplaced=len(foreign),
        )
        for what, found in (("lost", lost), ("there twice", twice), ("others'", foreign)):
            if found:
                first = ", ".join(map(str, found[:5]))
                faults.append(
                    f"{source.tenant}'s {signal}: {len(found)} of {len(taken)} {what}, "
                    f"such as {first}{said}"
                )
        if not taken:
            faults.append(f"{source.tenant}'s {signal}: none was taken: {_reason(source)}")
    return Delivered(
        signal,
        sums["acknowledged"],
        sums["lost"],
        sums["known"],
        sums["twice"],
        sums["misplaced"],
        tuple(faults),
    )


def _there(
    stack: Stack, client: Client, source: Source, signal: Signal
) -> tuple[Counter[tuple[str, int]], str]:
    try:
        return arrived(client, stack.reader(source.tenant), signal, source.run), ""
    except StackproofError as error:
        return Counter(), f" ({error})"


def _reason(source: Source) -> str:
    return next(iter(source.refused), "nothing was sent")


class Before:
    """Telemetry of before a roll: what the proof has sent, and some that is hours old.

    Args:
        stack: Just started: hours-old samples are taken only before newer ones of the tenant.
        client: Asks.
        tenants: Who sends.
    """

    def __init__(self, stack: Stack, client: Client, tenants: Sequence[str]) -> None:
        self._stack = stack
        self._client = client
        self._tenants = tenants
        self._run = synthetic.new_run()
        now = time.time_ns()
        for tenant in tenants:
            with stack.sender(tenant, EntryPoint.GATEWAY, client) as opened:
                for signal in (Signal.METRICS, Signal.LOGS, Signal.TRACES):
                    age = 0 if signal is Signal.TRACES else _AGE_S * 10**9
                    for number in _AGED:
                        at = now - age + number * 10**9
                        opened.send(signal, numbered(signal, tenant, self._run, number, at))

    def unread(self, emissions: Mapping[str, Emission], patience_s: float) -> tuple[str, ...]:
        """Return what cannot be read (any more), and why: nothing where all is well."""
        return (*self._aged(patience_s), *self._proven(emissions, patience_s))

    def _aged(self, patience_s: float) -> Iterator[str]:
        for tenant, signal in product(self._tenants, Signal):
            about = f"{tenant}'s {signal} of the last {_RANGE_S // 3600} hours"
            yield from _unseen(partial(self._look_back, tenant, signal), patience_s, about)

    def _look_back(self, tenant: str, signal: Signal) -> _Look:
        reader = self._stack.reader(tenant)
        try:
            found = arrived(self._client, reader, signal, self._run, window_s=_RANGE_S)
        except StackproofError as error:
            return None, str(error)
        numbers = sorted(number for owner, number in found if owner == tenant)
        return numbers == [*_AGED] or None, f"numbers {numbers} of {len(_AGED)}"

    def _proven(self, emissions: Mapping[str, Emission], patience_s: float) -> Iterator[str]:
        marks, within = Marks(emissions), window(*emissions.values())

        def look(emission: Emission, api: ReadApi) -> _Look:
            reader = self._stack.reader(emission.tenant)
            answer = self._client.ask(api, reader, question(emission, within))
            owners = {owner for owner, _ in marks.find(answer.body, api.mark).values()}
            return emission.tenant in owners or None, answer.describe()

        for emission, api in product(emissions.values(), PROVABLE):
            if not api.volatile:
                about = f"{emission.tenant}'s {api.signal} through {api.id}"
                yield from _unseen(partial(look, emission, api), patience_s, about)


def _unseen(look: Callable[[], _Look], patience_s: float, about: str) -> Iterator[str]:
    """Yield a sentence where something is not seen in time."""
    try:
        poll(look, patience_s, about, interval_s=0.1)
    except StackproofError as error:
        yield str(error)
