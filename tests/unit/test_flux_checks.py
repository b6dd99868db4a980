"""The Flux tree is right, and each check of it notices its fault."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stackproof.checkout import Checkout
from stackproof.flux.checks import FLUX as CHECKS
from stackproof.flux.checks import Subject
from stackproof.twins.flux import FLUX as TWINS

#: Faults beside the twins', which prove each check once: file, old, new, check, message.
FAULTS = [
    (
        "flux-system/image-automation.yaml",
        "        name: FluxCD Bot\n",
        "",
        "branches-are-proven",
        "do not say by whom they are",
    ),
    (
        "tenants/enterprise-b/tenant.yaml",
        "interval: 10m",
        "interval: 60m",
        "tenants-match",
        "step tenant-enterprise-b: interval is 60m",
    ),
    (
        "tenants/enterprise-b/tenant.yaml",
        "name: tenant-enterprise-b",
        "name: enterprise-b",
        "tenants-match",
        "there is no step tenant-enterprise-b",
    ),
    (
        "secret-store/tenant-secrets.yaml",
        "failurePolicy: Fail",
        "failurePolicy: Refuse",
        "kinds-served",
        "no failurePolicy Refuse",
    ),
]


@pytest.fixture(scope="module")
def subject(checkout: Checkout) -> Subject:
    return Subject.load(checkout)


@pytest.mark.parametrize("name", CHECKS.names)
def test_holds(name: str, subject: Subject) -> None:
    problems = list(CHECKS[name].find(subject))
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(("file", "old", "new", "check", "message"), FAULTS)
def test_a_fault_is_noticed(
    checkout: Checkout, tmp_path: Path, file: str, old: str, new: str, check: str, message: str
) -> None:
    for name in ("charts", "flux", "observability", "schemas", ".github"):
        shutil.copytree(checkout.root / name, tmp_path / name)
    shutil.copy(checkout.versions_file, tmp_path)
    changed = tmp_path / "flux" / file
    text = changed.read_text(encoding="utf-8")
    assert old in text
    changed.write_text(text.replace(old, new), encoding="utf-8")
    (problem,) = CHECKS[check].find(Subject.load(Checkout(tmp_path)))
    assert message in problem


def test_every_check_has_a_twin() -> None:
    """A check that has never failed proves nothing."""
    assert {f"flux.{name}" for name in CHECKS.names} == {twin.caught_by for twin in TWINS}


def test_every_fault_of_the_plan_is_put_back() -> None:
    assert {13, 14, 17, 18, 19, 20, 21} <= {twin.seed for twin in TWINS}
