"""The proof: a control for every claim of absence, the verdict on what was seen, and delivery."""

from __future__ import annotations

from .proof import Progress, Proof
from .refusals import intruders
from .run import pairs, prove, subjects
from .tokens import Marks, observe, question

__all__ = [
    "Marks",
    "Progress",
    "Proof",
    "intruders",
    "observe",
    "pairs",
    "prove",
    "question",
    "subjects",
]
