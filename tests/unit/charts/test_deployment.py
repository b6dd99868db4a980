"""What the repository deploys, as a whole: every check of the registry, on the real values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stackproof.checks import Rule
from stackproof.checks.deployment import DEPLOYMENT, RenderedDeployment
from stackproof.checks.platform import PLATFORM
from stackproof.checks.settings import SETTINGS
from stackproof.flux.deployment import Deployment
from stackproof.repo.checkout import Checkout


@pytest.fixture(scope="module")
def deployed() -> RenderedDeployment:
    return RenderedDeployment(Deployment.load(Checkout.find()))


@pytest.mark.parametrize("check", [*DEPLOYMENT, *SETTINGS, *PLATFORM], ids=lambda check: check.name)
def test_deployment(check: Rule[RenderedDeployment], deployed: RenderedDeployment) -> None:
    problems = list(check.find(deployed))
    assert not problems, f"{check.about}\n" + "\n".join(problems)


def test_an_object_that_is_not_rendered_each_time_is_named(deployed: RenderedDeployment) -> None:
    *others, last = deployed.lgtm.manifests
    shorter = RenderedDeployment(deployed.deployment)
    vars(shorter)["lgtm"] = replace(deployed.lgtm, manifests=tuple(others))
    problems = list(DEPLOYMENT["rendering-twice-gives-the-same"].find(shorter))
    assert problems == [f"{last.source}: {last.ref} in observability differs each time"]
