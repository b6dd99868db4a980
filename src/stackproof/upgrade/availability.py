"""How long nobody answered, of each thing that tenants ask for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

#: When something was asked (`time.monotonic()`), and whether there was an answer.
Poll = tuple[float, bool]


@dataclass(frozen=True, slots=True)
class Availability:
    """How one thing answered the tenant that waited longest.

    Args:
        name: What was asked for.
        tenant: Who waited.
        polls: How often it was asked, by all tenants.
        gaps: From the first question without an answer to the first with one, in seconds since the
            roll began.
        apart_s: The longest time between two questions of a tenant.
    """

    name: str
    tenant: str
    polls: int
    gaps: tuple[tuple[float, float], ...]
    apart_s: float

    @property
    def unanswered_s(self) -> float:
        """Seconds without an answer."""
        return sum(end - begin for begin, end in self.gaps)


def availability(name: str, polls: Mapping[str, Sequence[Poll]], began: float) -> Availability:
    """Return how a thing answered, from the polls of each tenant; every tenant has some."""
    gaps = {tenant: tuple(_gaps(each, began)) for tenant, each in polls.items()}
    worst = max(gaps, key=lambda tenant: sum(end - begin for begin, end in gaps[tenant]))
    asked = (sorted(at for at, _ in each) for each in polls.values())
    apart = max((b - a for times in asked for a, b in itertools.pairwise(times)), default=0.0)
    return Availability(name, worst, sum(map(len, polls.values())), gaps[worst], apart)


def _gaps(polls: Sequence[Poll], began: float) -> Iterable[tuple[float, float]]:
    """Yield the times without an answer, counted from when each question was asked."""
    since: float | None = None
    for at, answered in sorted(polls):
        if not answered and since is None:
            since = at
        elif answered and since is not None:
            yield since - began, at - began
            since = None
    if since is not None:
        yield since - began, max(at for at, _ in polls) - began
