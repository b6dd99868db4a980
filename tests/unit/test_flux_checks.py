"""The Flux tree is right, and each check of it notices its fault."""

from __future__ import annotations

import pytest

from stackproof.checkout import Checkout
from stackproof.flux.checks import FLUX as CHECKS
from stackproof.flux.checks import Subject
from stackproof.twins.flux import FLUX as TWINS


@pytest.fixture(scope="module")
def subject(checkout: Checkout) -> Subject:
    return Subject.load(checkout)


@pytest.mark.parametrize("name", CHECKS.names)
def test_holds(name: str, subject: Subject) -> None:
    problems = list(CHECKS[name].find(subject))
    assert not problems, "\n".join(problems)


def test_every_check_has_a_twin() -> None:
    """A check that has never failed proves nothing."""
    assert {f"flux.{name}" for name in CHECKS.names} == {twin.caught_by for twin in TWINS}


def test_every_fault_of_the_plan_is_put_back() -> None:
    assert {13, 14, 17, 18, 19, 20, 21} <= {twin.seed for twin in TWINS}
