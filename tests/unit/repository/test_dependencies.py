"""What a user, and the canary's image, get with the package: nothing of the tests.

That what is imported is declared, and the other way round, `make lint` asks deptry.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

from stackproof.errors import EXTRAS
from stackproof.repo.checkout import Checkout


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def _declared(checkout: Checkout) -> tuple[set[str], dict[str, set[str]]]:
    """Return the packages that are always needed, and those of each extra."""
    project = tomllib.loads((checkout.root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return (
        {_name(each) for each in project["dependencies"]},
        {extra: {_name(each) for each in needed} for extra, needed in extras.items()},
    )


def _locked(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9][\w.-]*)==(\S+)", path.read_text(), re.MULTILINE))


def test_each_extra_brings_what_it_is_named_for(checkout: Checkout) -> None:
    _, extras = _declared(checkout)
    known = packages_distributions()
    for module, extra in EXTRAS.items():
        assert {_name(each) for each in known[module]} & extras[extra]


def test_the_runtime_lock_is_a_part_of_the_lock(checkout: Checkout) -> None:
    whole = _locked(checkout.root / "requirements.lock")
    runtime = _locked(checkout.root / "requirements-runtime.lock")
    core, extras = _declared(checkout)
    assert core <= runtime.keys()
    assert runtime.items() <= whole.items()
    # What sends OTLP over HTTP brings requests, which tests use as well.
    tests = extras["test"] - {"requests"}
    assert not runtime.keys() & (extras["dev"] | tests | extras["docs"])


def test_the_images_last_stage_takes_the_runtime_lock_alone(checkout: Checkout) -> None:
    last = (checkout.root / "Dockerfile").read_text().rpartition("FROM ")[2]
    assert "-r requirements-runtime.lock" in last
    assert "requirements.lock" not in last


def test_nothing_joins_a_users_pytest(checkout: Checkout) -> None:
    for name in _locked(checkout.root / "requirements-runtime.lock"):
        groups = {point.group for point in distribution(name).entry_points}
        assert "pytest11" not in groups, name
