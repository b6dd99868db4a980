"""Isolated before, at every moment during, and after a change rolls out, and nothing is lost."""

from __future__ import annotations

from .result import Upgrade, UpgradeVerdict
from .run import prove

__all__ = ["Upgrade", "UpgradeVerdict", "prove"]
