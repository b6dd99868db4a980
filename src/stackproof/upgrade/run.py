"""One roll: proven before, watched while it goes on, proven after."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from stackproof import isolation
from stackproof.backends import Client
from stackproof.flux.deployment import Deployment
from stackproof.isolation.delivery import TEMPO_ENDS_S, TEMPO_LOSS_S, Source, sending
from stackproof.isolation.verdict import Verdict
from stackproof.model import Backend, EntryPoint, Signal
from stackproof.repo.versions import Versions
from stackproof.stack.rollout import ENDING, Rollable

from .availability import Availability, availability
from .delivered import Before, settled
from .result import Upgrade, grouped
from .watch import Watch

#: For so long all send and read before the first change and after the last.
_AROUND_S = 2.0
#: How long Alloy may take to send what it kept, after the longest absence of a backend.
_PATIENCE_S = 60.0
#: How long what was there before may take to be there again.
_KEPT_S = 10.0


def prove(
    stack: Rollable,
    after: Deployment,
    *,
    since: str = "before",
    deadline_s: float = 30.0,
    patience_s: float = _PATIENCE_S,
    pins: Versions | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Upgrade:
    """Roll a stack that has just started, and prove it before, during and after.

    Args:
        stack: What runs first.
        after: What takes over.
        since: What runs first is called so.
        deadline_s: As in `isolation.prove`.
        patience_s: How long what was acknowledged may take to be there after the roll.
        pins: What is deployed, for the comparison with what ran.
        say: Is told what is being done.

    Raises:
        StackproofError: It could not be tried: something does not start.
    """
    tenants = tuple(name for name in stack.tenants if name in after.registry.names)
    isolation.subjects(tenants, tenants)
    with Client() as client:
        say("proving the old state")
        sent = Before(stack, client, tenants)
        first = isolation.prove(stack, tenants, deadline_s=deadline_s)
        upgrade = Upgrade(since=since, tenants=tenants, before=first, notes=sent.notes)
        unread = sent.unread(first.emissions, _KEPT_S)
        if first.verdict is not Verdict.ISOLATED or unread:
            return replace(upgrade, notes=("nothing was rolled", *unread, *sent.notes))
        say("rolling, while all send and read")
        roll = _roll(stack, client, first, after)
        say("counting what arrived, and proving the new state")
        ends = [event.at for event in stack.events if (event.component, event.what) == _TEMPO_ENDS]
        return replace(
            upgrade,
            rolled=roll.rolled,
            seconds=roll.seconds,
            events=tuple(replace(event, at=event.at - roll.began) for event in stack.events),
            seen=grouped((each.at - roll.began, each.violation) for each in roll.watch.moments),
            availability=tuple(_availability(roll)),
            delivered=settled(
                stack,
                client,
                [*roll.alloys.values(), *roll.direct.values()],
                lambda signal, taken: _known(signal, taken, ends),
                patience_s,
            ),
            unread=sent.unread(first.emissions, _KEPT_S),
            unwatched=tuple(roll.watch.unwatched()),
            after=isolation.prove(stack, deadline_s=deadline_s, pins=pins),
        )


@dataclass(frozen=True, slots=True)
class _Roll:
    """What was seen while a stack rolled.

    Args:
        began: When the roll began (`time.monotonic()`).
        seconds: How long it took.
        rolled: The components that were replaced.
        alloys: What each tenant sent to its Alloy.
        direct: What each tenant sent to the gateway.
        watch: What each tenant, and whoever intruded, read.
    """

    began: float
    seconds: float
    rolled: tuple[str, ...]
    alloys: Mapping[str, Source]
    direct: Mapping[str, Source]
    watch: Watch


def _roll(stack: Rollable, client: Client, before: isolation.Proof, after: Deployment) -> _Roll:
    """Roll a stack while the tenants of the proof before send and read."""
    tenants, pause_s = before.tenants, stack.pace_s
    gateway = EntryPoint.GATEWAY
    with (
        sending(stack, client, tenants, pause_s=pause_s) as alloys,
        sending(stack, client, tenants, entry_point=gateway, pause_s=pause_s) as direct,
        Watch.over(stack, before.emissions, pause_s) as watch,
    ):
        time.sleep(_AROUND_S)
        began = time.monotonic()
        rolled = stack.roll(after)
        seconds = time.monotonic() - began
        time.sleep(_AROUND_S)
    return _Roll(began, seconds, rolled, alloys, direct, watch)


_TEMPO_ENDS = ("tempo", ENDING)


def _known(signal: Signal, taken: float, ends: list[float]) -> bool:
    """Tell whether a Tempo that was told to end may lose what it has acknowledged then."""
    return signal is Signal.TRACES and any(
        end - TEMPO_LOSS_S < taken < end + TEMPO_ENDS_S for end in ends
    )


def _availability(roll: _Roll) -> Iterator[Availability]:
    """Yield how each thing answered that was asked for while the stack rolled."""
    for backend in Backend:
        polls = {tenant: each for (of, tenant), each in roll.watch.reads.items() if of is backend}
        yield availability(f"reads of {backend}", polls, roll.began)
    yield availability("refusals", roll.watch.refusals, roll.began)
    for signal in Signal:
        polls = {tenant: source.attempts[signal] for tenant, source in roll.direct.items()}
        yield availability(f"{signal} to the gateway", polls, roll.began)
    polls = {name: sorted(chain(*source.attempts.values())) for name, source in roll.alloys.items()}
    yield availability("all to Alloy", polls, roll.began)
