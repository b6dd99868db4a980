"""What the repository deploys, as a whole: every check of the registry, on the real values."""

from __future__ import annotations

import pytest

from stackproof.checkout import Checkout
from stackproof.checks import Check
from stackproof.checks.deployment import DEPLOYMENT, Scene
from stackproof.checks.platform import PLATFORM
from stackproof.deployment import Deployment


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(Deployment.load(Checkout.find()))


@pytest.mark.parametrize("check", [*DEPLOYMENT, *PLATFORM], ids=lambda check: check.name)
def test_deployment(check: Check[Scene], scene: Scene) -> None:
    problems = list(check.find(scene))
    assert not problems, f"{check.about}\n" + "\n".join(problems)
