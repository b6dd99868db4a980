"""Tests of a group share a stack, and run one after the other."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from stackproof.attacks import Attack


def in_halves(group: str, attacks: Iterable[Attack]) -> list[object]:
    """Return the attacks as parameters, half of them for each of two workers' stacks."""
    return [
        pytest.param(each, id=each.name, marks=pytest.mark.xdist_group(f"{group}-{number % 2}"))
        for number, each in enumerate(attacks)
    ]
