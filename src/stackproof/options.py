"""Numbers on the command line: `nan`, `inf`, `1e400` and what is out of range are refused there."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

MOST = 1e12
"""More than any load has, and little enough that no product of a few of them overflows."""

_Number = TypeVar("_Number", int, float)


def number(at_least: float = 1e-3, at_most: float = MOST) -> Callable[[str], float]:
    """Return a type for argparse: a finite number within bounds."""
    return _within(float, "a number", at_least, at_most)


def count(at_least: int = 1, at_most: int = int(MOST)) -> Callable[[str], int]:
    """Return a type for argparse: a whole number within bounds."""
    return _within(int, "a whole number", at_least, at_most)


def _within(
    kind: Callable[[str], _Number], what: str, low: _Number, high: _Number
) -> Callable[[str], _Number]:
    def parse(text: str) -> _Number:
        try:
            value = kind(text)
            if low <= value <= high:  # nan is neither
                return value
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"{text!r} is not {what} from {low:g} to {high:g}")

    return parse
