"""What Flux deploys is what the local stack runs and the checks look at."""

from __future__ import annotations

import pytest

from stackproof.flux.delivered import differing
from stackproof.flux.deployment import LGTM_RELEASE, Deployment
from stackproof.flux.tree import Tree
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE


@pytest.fixture(scope="module")
def deployment(checkout: Checkout) -> Deployment:
    return Deployment.load(checkout)


def test_flux_delivers_what_is_checked(tree: Tree, deployment: Deployment) -> None:
    assert list(differing(tree, deployment)) == []


def test_what_flux_delivers_otherwise_is_told(tree: Tree, deployment: Deployment) -> None:
    other = deployment.with_values(lgtm=[{"mimir": {"exemplars": 1}}])
    assert list(differing(tree, other)) == [
        f"{OBSERVABILITY_NAMESPACE}: Flux applies another ConfigMap/mimir",
        f"{OBSERVABILITY_NAMESPACE}: Flux applies another StatefulSet/mimir",
    ]
    other = deployment.with_values(tenant=[{"alloy": {"podLogs": {"enabled": False}}}])
    found = list(differing(tree, other))
    assert "enterprise-a: Role/open-webui-alloy is only in the Flux tree" in found
    assert "enterprise-a: Flux applies another ConfigMap/open-webui-alloy" in found


def test_a_release_that_flux_does_not_render_is_told(
    tree: Tree, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases = {key: r for key, r in tree.releases.items() if key[1] != LGTM_RELEASE}
    monkeypatch.setitem(tree.__dict__, "releases", releases)
    assert f"observability: Flux renders no release {LGTM_RELEASE}" in differing(tree, deployment)
