"""One roll: proven before, watched while it goes on, proven after."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
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
        with (
            sending(stack, client, tenants, pause_s=stack.pace_s) as alloys,
            sending(
                stack, client, tenants, entry_point=EntryPoint.GATEWAY, pause_s=stack.pace_s
            ) as direct,
            Watch.over(stack, first.emissions, stack.pace_s) as watch,
        ):
            time.sleep(_AROUND_S)
            began = time.monotonic()
            rolled = stack.roll(after)
            seconds = time.monotonic() - began
            time.sleep(_AROUND_S)
        say("counting what arrived, and proving the new state")
        ends = [event.at for event in stack.events if (event.component, event.what) == _TEMPO_ENDS]
        return replace(
            upgrade,
            rolled=rolled,
            seconds=seconds,
            events=tuple(replace(event, at=event.at - began) for event in stack.events),
            seen=grouped((moment.at - began, moment.violation) for moment in watch.moments),
            availability=tuple(_availability(watch, alloys, direct, began)),
            delivered=settled(
                stack,
                client,
                [*alloys.values(), *direct.values()],
                lambda signal, taken: _known(signal, taken, ends),
                patience_s,
            ),
            unread=sent.unread(first.emissions, _KEPT_S),
            unwatched=tuple(watch.unwatched()),
            after=isolation.prove(stack, deadline_s=deadline_s, pins=pins),
        )


_TEMPO_ENDS = ("tempo", ENDING)


def _known(signal: Signal, taken: float, ends: list[float]) -> bool:
    """Tell whether a Tempo that was told to end may lose what it has acknowledged then."""
    return signal is Signal.TRACES and any(
        end - TEMPO_LOSS_S < taken < end + TEMPO_ENDS_S for end in ends
    )


def _availability(
    watch: Watch, alloys: Mapping[str, Source], direct: Mapping[str, Source], began: float
) -> Iterator[Availability]:
    for backend in Backend:
        polls = {tenant: each for (of, tenant), each in watch.reads.items() if of is backend}
        yield availability(f"reads of {backend}", polls, began)
    yield availability("refusals", watch.refusals, began)
    for signal in Signal:
        polls = {tenant: source.attempts[signal] for tenant, source in direct.items()}
        yield availability(f"{signal} to the gateway", polls, began)
    polls = {name: sorted(chain(*source.attempts.values())) for name, source in alloys.items()}
    yield availability("all to Alloy", polls, began)
