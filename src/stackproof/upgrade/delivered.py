"""What became of all that was sent, before and during a roll."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from operator import itemgetter

from stackproof.backends import PROVABLE, Client, ReadApi
from stackproof.errors import StackproofError
from stackproof.isolation.delivery import Source, arrived, numbered
from stackproof.isolation.tokens import Marks, question, window
from stackproof.model import EntryPoint, Signal
from stackproof.otlp import synthetic
from stackproof.otlp.senders import ExportError
from stackproof.otlp.synthetic import Emission
from stackproof.stack.base import Stack
from stackproof.waiting import until

#: Tells of a signal and the time of an acknowledgement whether a known limit may have lost it.
Known = Callable[[Signal, float], bool]

#: So old are the points and lines that are sent first. A backend that keeps less says so at once,
#: long before its compactor deletes them: Mimir and Loki answer without them. Loki asks its
#: ingesters for three hours only (`query_ingesters_within`).
_AGE_S = 2.5 * 3600
#: Spans are of now, as Tempo finds what is old by its id alone until its block is complete. They
#: are searched for so far back, which it refuses where it keeps less.
_RANGE_S = 3 * 3600
_Look = tuple[bool, str]
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
            why = next(iter(source.refused), "nothing was sent")
            faults.append(f"{source.tenant}'s {signal}: none was taken: {why}")
    return Delivered(signal=signal, faults=tuple(faults), **sums)


def _there(
    stack: Stack, client: Client, source: Source, signal: Signal
) -> tuple[Counter[tuple[str, int]], str]:
    try:
        return arrived(client, stack.reader(source.tenant), signal, source.run), ""
    except StackproofError as error:
        return Counter(), f" ({error})"


class Before:
    """Telemetry of before a roll: what the proof has sent, and some that is hours old.

    Args:
        stack: Best just started: Mimir takes hours-old points only before newer ones of the tenant.
        client: Asks.
        tenants: Who sends.
    """

    def __init__(self, stack: Stack, client: Client, tenants: Sequence[str]) -> None:
        self._stack = stack
        self._client = client
        self._run = synthetic.new_run()
        self._aged_s = time.time() - _AGE_S
        self._taken: list[tuple[str, Signal]] = []
        refused = {}
        for tenant, signal in product(tenants, Signal):
            try:
                self._send(tenant, signal)
                self._taken.append((tenant, signal))
            except ExportError as error:
                refused[signal] = error.what
        self.notes = tuple(
            f"{signal} of hours ago are not asked for, of whom they were not taken: {why}"
            for signal, why in refused.items()
        )
        """What is not asked for after the roll, and why."""

    def _send(self, tenant: str, signal: Signal) -> None:
        with self._stack.sender(tenant, EntryPoint.GATEWAY, self._client) as opened:
            for number in _AGED:
                at_ns = 0 if signal is Signal.TRACES else int((self._aged_s + number) * 10**9)
                opened.send(signal, numbered(signal, tenant, self._run, number, at_ns))

    def unread(self, emissions: Mapping[str, Emission], patience_s: float) -> tuple[str, ...]:
        """Return what cannot be read (any more), and why: nothing where all is well.

        All together is waited for `patience_s`; each is asked for once at least.
        """
        ends = time.monotonic() + patience_s
        return (*self._aged(ends), *self._proven(emissions, ends))

    def _aged(self, ends: float) -> Iterator[str]:
        for tenant, signal in self._taken:
            about = f"{tenant}'s {signal}, asked for as of hours ago,"
            yield from _unseen(partial(self._look_back, tenant, signal), ends, about)

    def _look_back(self, tenant: str, signal: Signal) -> _Look:
        reader = self._stack.reader(tenant)
        far = {"window_s": _RANGE_S} if signal is Signal.TRACES else {"end_s": self._aged_s + 60}
        try:
            found = arrived(self._client, reader, signal, self._run, **far)
        except StackproofError as error:
            return False, str(error)
        numbers = sorted(number for owner, number in found if owner == tenant)
        return numbers == [*_AGED], f"numbers {numbers} of {len(_AGED)}"

    def _proven(self, emissions: Mapping[str, Emission], ends: float) -> Iterator[str]:
        marks, within = Marks(emissions), window(*emissions.values())

        def look(emission: Emission, api: ReadApi) -> _Look:
            reader = self._stack.reader(emission.tenant)
            answer = self._client.ask(api, reader, question(emission, within))
            owners = {owner for owner, _ in marks.find(answer.body, api.mark).values()}
            return emission.tenant in owners, answer.describe()

        for emission, api in product(emissions.values(), PROVABLE):
            if not api.volatile:
                about = f"{emission.tenant}'s {api.signal} through {api.id}"
                yield from _unseen(partial(look, emission, api), ends, about)


def _unseen(look: Callable[[], _Look], ends: float, about: str) -> Iterator[str]:
    """Yield a sentence where something is not seen in time."""
    left_s = ends - time.monotonic()
    found, seen = until(look, itemgetter(0), within_s=left_s, every_s=_PAUSE_S)
    if not found:
        yield f"{about} cannot be read: {seen}"
