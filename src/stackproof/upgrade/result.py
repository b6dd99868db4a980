"""What a roll proves, in four parts; and what they come to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from stackproof.errors import ExitCode
from stackproof.isolation import Proof
from stackproof.isolation.verdict import Verdict, Violation
from stackproof.stack.rollout import RollEvent

from .availability import Availability
from .delivered import Delivered


class UpgradeVerdict(StrEnum):
    """What the parts come to; the worst of them decides."""

    ISOLATED = "isolated"
    LEAKING = "leaking"
    LOST = "lost"
    INCOMPLETE = "incomplete"
    UNCHANGED = "unchanged"
    """Nothing that runs here is replaced or gets new files: there are no moments in between."""

    @property
    def exit_code(self) -> ExitCode:
        """0 isolated or unchanged, 1 leaking or lost, 2 incomplete."""
        return {
            UpgradeVerdict.LEAKING: ExitCode.BAD,
            UpgradeVerdict.LOST: ExitCode.BAD,
            UpgradeVerdict.INCOMPLETE: ExitCode.UNDECIDED,
        }.get(self, ExitCode.GOOD)


@dataclass(frozen=True, slots=True)
class Seen:
    """One violation, as often as it was seen during the roll."""

    violation: Violation
    times: int
    first_s: float
    last_s: float

    def __str__(self) -> str:
        when = f"after {self.first_s:.1f} s"
        if self.times > 1:
            when = f"{self.times} times from {self.first_s:.1f} to {self.last_s:.1f} s"
        return f"during, {when}: {self.violation}"


def grouped(moments: Iterator[tuple[float, Violation]]) -> tuple[Seen, ...]:
    """Put together violations of one kind, reader and message."""
    found: dict[tuple[str, str, str], list[tuple[float, Violation]]] = defaultdict(list)
    for at, violation in sorted(moments, key=lambda moment: moment[0]):
        found[violation.kind, violation.message, violation.reader].append((at, violation))
    return tuple(
        Seen(seen[0][1], len(seen), seen[0][0], seen[-1][0]) for _, seen in sorted(found.items())
    )


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """A roll from one deployment to another, watched by all tenants.

    Args:
        since: From which revision.
        tenants: Who was there before and after.
        before: The proof of the old state.
        after: That of the new one; None where the old one was not isolated.
        rolled: The components that were replaced, begun or ended.
        seconds: How long the roll took.
        events: What happened when, in seconds since it began.
        seen: The violations at any moment of it.
        availability: How long nobody answered.
        delivered: What became of all that was sent meanwhile.
        unread: What of before cannot be read after it, and why.
        unwatched: What nothing is known of, as nobody ever got an answer.
        notes: What was not done or not checked, and why.
    """

    since: str
    tenants: tuple[str, ...]
    before: Proof
    after: Proof | None = None
    rolled: tuple[str, ...] = ()
    seconds: float = 0.0
    events: tuple[RollEvent, ...] = ()
    seen: tuple[Seen, ...] = ()
    availability: tuple[Availability, ...] = ()
    delivered: tuple[Delivered, ...] = ()
    unread: tuple[str, ...] = ()
    unwatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def during(self) -> Verdict:
        """What the moments of the roll come to."""
        if any(each.violation.kind.leaking for each in self.seen):
            return Verdict.LEAKING
        undecided = self.seen or self.unwatched or self.after is None
        return Verdict.INCOMPLETE if undecided else Verdict.ISOLATED

    @property
    def verdict(self) -> UpgradeVerdict:
        """The worst of all parts."""
        after = self.after.verdict if self.after else Verdict.INCOMPLETE
        parts = {self.before.verdict, self.during, after}
        if Verdict.LEAKING in parts or any(each.misplaced for each in self.delivered):
            return UpgradeVerdict.LEAKING
        if self.unread or any(each.lost or each.twice for each in self.delivered):
            return UpgradeVerdict.LOST
        faults = any(each.faults for each in self.delivered)
        if faults or Verdict.INCOMPLETE in parts:
            return UpgradeVerdict.INCOMPLETE
        return UpgradeVerdict.ISOLATED if self.events else UpgradeVerdict.UNCHANGED

    @property
    def reasons(self) -> tuple[str, ...]:
        """All violations and losses, in the order of the parts."""
        after = self.after.violations if self.after else ()
        health = (*self.before.health, *(self.after.health if self.after else ()))
        return (
            *(f"before: {violation}" for violation in self.before.violations),
            *map(str, self.seen),
            *(f"during: {told}" for told in self.unwatched),
            *(f"after: {violation}" for violation in after),
            *(f"not well: {problem}" for problem in health),
            *(f"delivery: {fault}" for each in self.delivered for fault in each.faults),
            *(f"of before: {told}" for told in self.unread),
        )
