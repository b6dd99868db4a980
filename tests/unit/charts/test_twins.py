"""Faults that rendering shows: each is caught by the check that is named, for the stated reason."""

from __future__ import annotations

import pytest

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.twins import CHECKS, CLUSTER, REGISTRIES, TWINS, Edit, Layer, Twin, markdown, run


@pytest.mark.parametrize(
    "twin",
    [twin for twin in TWINS if twin.layer is not Layer.LOCAL],
    ids=lambda twin: twin.name,
)
def test_twin_is_caught(twin: Twin) -> None:
    outcome = run(twin, Checkout.find())
    assert outcome.caught, f"{twin.fault}: {twin.caught_by} said {list(outcome.messages)}"


def test_names_are_unique() -> None:
    names = [twin.name for twin in (*TWINS, *CLUSTER)]
    assert len(names) == len(set(names))


def test_twins_name_checks_that_exist() -> None:
    assert {twin.caught_by for twin in TWINS} <= CHECKS


@pytest.mark.parametrize("registry", ["application", "observability", "settings"])
def test_every_rule_of_the_charts_has_a_twin(registry: str) -> None:
    caught = {twin.caught_by for twin in TWINS}
    # What the charts' values name by default, the deployment does not take: test_settings.
    rules = {*REGISTRIES[registry].names} - {"defaults-are-of-this-deployment"}
    assert {f"{registry}.{name}" for name in rules} <= caught


def test_a_stale_twin_is_an_error() -> None:
    stale = Twin(
        name="stale",
        fault="replaces what is not there",
        layer=Layer.UNIT,
        caught_by="deployment.references-resolve",
        reason=".",
        edits=[Edit("charts/lgtm/templates/loki.yaml", "no such text", "")],
    )
    with pytest.raises(StackproofError, match="Adapt the twin"):
        run(stale, Checkout.find())


def test_a_harmless_twin_is_not_caught() -> None:
    harmless = Twin(
        name="harmless",
        fault="a comment",
        layer=Layer.UNIT,
        caught_by="deployment.retention-is-in-force",
        reason=".",
        edits=[Edit("charts/lgtm/templates/loki.yaml", "target: all", "target: all # once more")],
    )
    outcome = run(harmless, Checkout.find())
    assert not outcome.caught
    assert outcome.record()["caught_by"] is None


def test_the_documentation_is_up_to_date() -> None:
    page = Checkout.find().root / "docs" / "twins.md"
    assert page.read_text(encoding="utf-8") == markdown([*TWINS, *CLUSTER]), (
        "run: stackproof twins --docs"
    )


def test_every_fault_of_the_first_design_has_a_twin() -> None:
    """docs/faults.md lists them; the last row is about commands that were typed in by hand."""
    assert {twin.number for twin in (*TWINS, *CLUSTER)} >= set(range(1, 23))
