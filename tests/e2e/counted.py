"""What has become of telemetry that was counted while something went wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from operator import not_

from stackproof.backends import Client
from stackproof.errors import StackproofError
from stackproof.isolation.delivery import Source, arrived
from stackproof.model import Signal
from stackproof.stack.base import Stack
from stackproof.waiting import until

#: Tells whether what was taken at a time may be missing, by a known limit.
MayLack = Callable[[Signal, float], bool]


def nothing(_signal: Signal, _taken: float) -> bool:
    return False


def faults_of(
    stack: Stack, client: Client, source: Source, may_lack: MayLack = nothing
) -> Iterator[str]:
    """Yield what of one tenant's is missing, there twice, or another's."""
    for signal in Signal:
        about = f"{source.tenant}'s {signal}"
        assert source.taken[signal], f"{about}: nothing was acknowledged: {source.refused}"
        try:
            there = arrived(client, stack.reader(source.tenant), signal, source.run)
        except StackproofError as error:
            yield f"{about}: {error}"
            continue
        lost = [
            number
            for number, taken in source.taken[signal].items()
            if not there[source.tenant, number] and not may_lack(signal, taken)
        ]
        twice = [key for key, times in there.items() if times > 1]
        foreign = [key for key in there if key[0] != source.tenant]
        if lost or twice or foreign:
            yield f"{about}: lost {lost}, there twice {twice}, others' {foreign}"


def all_there(
    stack: Stack,
    client: Client,
    sources: Mapping[str, Source],
    may_lack: MayLack = nothing,
    *,
    within_s: float = 90,
) -> None:
    """Wait until every acknowledged number is there; it must be there once, and its owner's."""

    def faults() -> str:
        found = (faults_of(stack, client, source, may_lack) for source in sources.values())
        return "\n".join(chain.from_iterable(found))

    assert until(faults, not_, within_s=within_s, every_s=0.5) == ""
