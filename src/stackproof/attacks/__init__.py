"""What a hostile or careless tenant does, and what must come of it: `ATTACKS` is the registry."""

from __future__ import annotations

from stackproof.attacks.alloy import ALLOY
from stackproof.attacks.arena import Arena
from stackproof.attacks.base import Attack, Door, Expect, Outcome, Raid, Scene, run
from stackproof.attacks.conduct import CONDUCT
from stackproof.attacks.direct import DIRECT
from stackproof.attacks.identity import IDENTITY
from stackproof.attacks.routes import ROUTES

ATTACKS: tuple[Attack, ...] = (*IDENTITY, *ROUTES, *CONDUCT, *ALLOY, *DIRECT)

__all__ = ["ATTACKS", "Arena", "Attack", "Door", "Expect", "Outcome", "Raid", "Scene", "run"]
