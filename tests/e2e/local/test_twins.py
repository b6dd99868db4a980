"""Faults that only running programs show: each turns the proof red, for the stated reason."""

from __future__ import annotations

import pytest

from stackproof.repo.checkout import Checkout
from stackproof.toolchain import openwebui
from stackproof.twins import TWINS, Layer, Twin, run


@pytest.mark.parametrize(
    "twin", [twin for twin in TWINS if twin.layer is Layer.LOCAL], ids=lambda twin: twin.name
)
def test_twin_is_caught(twin: Twin) -> None:
    if twin.caught_by.startswith("arrival.") and (why := openwebui.unavailable()):
        pytest.skip(why)
    outcome = run(twin, Checkout.find())
    assert outcome.caught, f"{twin.fault}: {twin.caught_by} said {list(outcome.messages)}"
