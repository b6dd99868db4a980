"""What Flux deploys is what the local stack runs and the checks look at."""

from __future__ import annotations

import pytest

from stackproof.checkout import Checkout
from stackproof.deployment import LGTM_RELEASE, TENANT_RELEASE, Deployment
from stackproof.flux.tree import build
from stackproof.manifests import Manifest, Release
from stackproof.tenants import OBSERVABILITY_NAMESPACE


def _objects(release: Release) -> dict[str, Manifest]:
    return {manifest.ref: manifest for manifest in release}


@pytest.fixture(scope="module")
def flux(checkout: Checkout) -> dict[tuple[str, str], Release]:
    releases = build(checkout).releases
    return {key: found.rendered for key, found in releases.items() if found.rendered}


@pytest.fixture(scope="module")
def deployment(checkout: Checkout) -> Deployment:
    return Deployment.load(checkout)


def test_the_observability_release_is_the_same(
    flux: dict[tuple[str, str], Release], deployment: Deployment
) -> None:
    assert _objects(flux[OBSERVABILITY_NAMESPACE, LGTM_RELEASE]) == _objects(deployment.lgtm())


def test_every_tenants_collector_and_secrets_are_the_same(
    flux: dict[tuple[str, str], Release], deployment: Deployment
) -> None:
    """A tenant's host and service name are Flux's alone; whatever carries its telemetry is not."""
    for tenant in deployment.registry:
        ours = _objects(deployment.tenant(tenant.name))
        theirs = _objects(flux[tenant.namespace, TENANT_RELEASE])
        carried = {ref for ref in ours if ref.endswith("-alloy") or "ExternalSecret" in ref}
        assert len(carried) >= 5
        assert ours.keys() == theirs.keys()
        for ref in carried:
            assert ours[ref] == theirs[ref], f"{ref} of {tenant.name}"
