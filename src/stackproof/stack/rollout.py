"""A deployment that goes over to another: what a stack offers that can, and what happens then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from stackproof.flux.deployment import Deployment

from .base import Stack


@dataclass(frozen=True, slots=True)
class RollEvent:
    """Something that a roll did: when (`time.monotonic()`), to which component, and what."""

    at: float
    component: str
    what: str


#: What an event says.
MOUNTED, STARTED, READY = "new files", "new one started", "new one ready"
ENDING, ENDED, KILLED = "old one told to end", "old one ended", "old one killed after its grace"


class Rollable(Stack, Protocol):
    """A running deployment that can go over to another one."""

    deployment: Deployment
    """What runs, or is about to."""
    events: list[RollEvent]
    """What the rolls so far did."""
    pace_s: float
    """Between two looks of each reader, and two items of each sender, while it rolls."""

    def roll(self, deployment: Deployment) -> tuple[str, ...]:
        """Go over to another deployment; volumes stay, and so do the secrets' values.

        Returns:
            The components of which a pod was replaced, begun or ended.

        Raises:
            StackproofError: A new pod does not get ready.
        """
