"""What a hostile or careless tenant does: refused, or harmless. One test an attack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.local.groups import in_halves

from stackproof.attacks import ATTACKS, Arena, Attack
from stackproof.flux.deployment import Deployment
from stackproof.repo.checkout import Checkout


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    with Arena(Deployment.load(Checkout.find()), spare=True) as running:
        yield running


@pytest.mark.parametrize("attack", in_halves("attacks", ATTACKS))
def test_attack(attack: Attack, arena: Arena) -> None:
    outcome = arena.run(attack)
    assert outcome.ok, f"{attack.does}: must be {attack.expect}; {outcome.record()}"
