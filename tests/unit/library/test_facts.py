"""What depends on a backend's version, and what is expected of an attack because of it."""

from __future__ import annotations

import pytest

from stackproof.attacks import ATTACKS
from stackproof.attacks.base import Attack, Expect
from stackproof.backends.facts import TEMPO_CHECKS_TENANTS

OLD = {"tempo": "2.9.0-dev+87c2dc380cec", "mimir": "3.0.9"}
NEW = {"tempo": "2.10.8"}


@pytest.mark.parametrize(
    ("version", "holds"),
    [
        ("2.9.0-dev+87c2dc380cec", False),
        ("2.9.9", False),
        ("2.10.0", True),
        ("v2.10.8", True),
        ("3.0.3", True),
        ("unknown", True),
    ],
)
def test_a_fact_holds_from_its_version_on(version: str, holds: bool) -> None:
    assert TEMPO_CHECKS_TENANTS.holds({"tempo": version}) is holds


def attack(name: str) -> Attack:
    (found,) = (each for each in ATTACKS if each.name == name)
    return found


def test_an_attack_on_a_backend_is_refused_where_the_fact_holds() -> None:
    dots = attack("backend-write-dots-to-tempo")
    assert dots.against(OLD).expect is Expect.DOCUMENTED
    assert dots.against(NEW).expect is Expect.REFUSED


def test_a_gateway_that_trusts_is_then_saved_by_the_backend() -> None:
    claim = attack("write-naming-dots")
    assert claim.against(OLD).ineffective_because == ""
    assert claim.against(NEW).ineffective_because == TEMPO_CHECKS_TENANTS.says
    assert {claim.against(versions).expect for versions in (OLD, NEW)} == {Expect.REFUSED}


def test_other_attacks_are_the_same_for_every_version() -> None:
    same = attack("write-naming-another-tenant")
    assert same.against(OLD) is same.against(NEW) is same
