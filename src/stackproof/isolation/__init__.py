"""The proof: a control for every claim of absence, the verdict on what was seen, and delivery."""

from .proof import EntryPoint, Progress, Proof
from .refusals import intruders
from .run import pairs, prove, sender, subjects
from .tokens import Marks, observe, question

__all__ = [
    "EntryPoint",
    "Marks",
    "Progress",
    "Proof",
    "intruders",
    "observe",
    "pairs",
    "prove",
    "question",
    "sender",
    "subjects",
]
