"""What a hostile or careless tenant does, and what must come of it: `ATTACKS` is the registry."""

from __future__ import annotations

from .alloy import ALLOY
from .arena import Arena
from .base import Attack, AttackedStack, AttackOutcome, AttackRun, Expect, run
from .conduct import CONDUCT
from .direct import DIRECT
from .exhaustion import EXHAUSTION
from .identity import IDENTITY
from .routes import ROUTES

ATTACKS: tuple[Attack, ...] = (*IDENTITY, *ROUTES, *CONDUCT, *EXHAUSTION, *ALLOY, *DIRECT)

__all__ = [
    "ATTACKS",
    "Arena",
    "Attack",
    "AttackOutcome",
    "AttackRun",
    "AttackedStack",
    "Expect",
    "run",
]
