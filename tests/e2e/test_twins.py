"""Faults that only running programs show: each turns the proof red, for the stated reason."""

from __future__ import annotations

import pytest

from stackproof.checkout import Checkout
from stackproof.twins import LOCAL, Twin, run


@pytest.mark.parametrize("twin", LOCAL, ids=lambda twin: twin.name)
def test_twin_is_caught(twin: Twin) -> None:
    outcome = run(twin, Checkout.find())
    assert outcome.caught, f"{twin.fault}: {twin.caught_by} said {list(outcome.messages)}"
