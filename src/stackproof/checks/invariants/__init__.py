"""What must hold for one render of any chart, whatever its values: no check knows a chart.

Verdicts on single objects are kept by content, so that thousands of renders which share most of
their objects cost little more than the objects that differ.
"""

from __future__ import annotations

from . import network, objects, pods, references, rollout, secrets, variables, volumes
from .base import INVARIANTS, broken, problems

__all__ = [
    "INVARIANTS",
    "broken",
    "network",
    "objects",
    "pods",
    "problems",
    "references",
    "rollout",
    "secrets",
    "variables",
    "volumes",
]
