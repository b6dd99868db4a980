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
from stackproof.stack.secrets import SecretStore, materialize


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


def test_what_echo_puts_behind_a_secret_is_no_part_of_it(deployed: RenderedDeployment) -> None:
    """But of the key by which Grafana has encrypted its database."""
    store = SecretStore()
    for external in deployed.lgtm.of_kind("ExternalSecret"):
        for entry in external["spec"]["data"]:
            store.write(entry["remoteRef"]["key"], "value\n")
    made = materialize(deployed.lgtm.manifests, store)
    ends = {key for secret in made.values() for key, value in secret.items() if value[-1] == "\n"}
    assert ends == {"secret-key"}
