"""Faults that rendering shows: each is caught by the check that is named, for the stated reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.twins import CHECKS, CLUSTER, REGISTRIES, TWINS, Edit, Layer, Twin, markdown, run


@pytest.mark.parametrize(
    "twin", [twin for twin in TWINS if twin.layer is not Layer.LOCAL], ids=lambda twin: twin.name
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


def test_a_copy_that_was_used_is_as_good_as_new() -> None:
    checkout = Checkout.find()
    name = "versions.yaml"
    edit = Edit(name, "images:", "pictures:")
    twin = Twin(name="used", fault="", caught_by="render", reason=".", edits=[edit])
    right = replace(twin, edits=())
    with right.deployment(checkout) as first:
        root = first.checkout.root
    with twin.deployment(checkout) as deployment, right.deployment(checkout) as beside:
        assert deployment.checkout.root == root != beside.checkout.root
        assert "pictures:" in (root / name).read_text("utf-8")
        (root / "charts" / "left-behind.yaml").touch()
        (root / "charts" / "lgtm" / "Chart.yaml").unlink()
    free = [right.deployment(checkout) for _ in range(2)]
    with free[0] as one, free[1] as other:
        roots = {one.checkout.root, other.checkout.root}
        assert root in roots
        for each in roots:
            assert (each / name).read_bytes() == checkout.versions_file.read_bytes()
            assert not (each / "charts" / "left-behind.yaml").exists()
            assert (each / "charts" / "lgtm" / "Chart.yaml").exists()


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
