"""The rules of sizes: each notices its fault, and reckons as the model of capacity does."""

from __future__ import annotations

import pytest

from stackproof.backends import capacity
from stackproof.checks.deployment import RenderedDeployment
from stackproof.checks.sizes import CACHES, SIZES
from stackproof.flux.deployment import Deployment
from stackproof.helm.manifests import at
from stackproof.repo.checkout import Checkout
from stackproof.twins import SIZES as TWINS

CHECKOUT = Checkout.find()


def test_every_rule_has_a_twin() -> None:
    """Each twin is found by one rule at least, and each rule finds one."""
    finders = set()
    for twin in TWINS:
        if twin.caught_by.startswith("deployment"):
            with twin.deployment(CHECKOUT) as deployment:
                releases = deployment.releases()
            finders |= {c.name for c in SIZES for r in releases if list(c.find(r))}
    assert finders == set(SIZES.names)


def test_needs_of_tenants_add_up() -> None:
    """Three tenants that are alike need what the model says of three; each asks its share."""
    usual = capacity.Load(tenants=1)
    one = capacity.granted(
        series=usual.series,
        samples_per_s=usual.samples_per_s,
        logs_bytes_per_s=usual.logs * 1e9 / 86_400,
        traces_bytes_per_s=usual.traces * 1e9 / 86_400,
        retention_days=usual.retention_days,
        queries_per_s=usual.queries_per_s / 3,
    )
    for alone, all_three in zip(
        capacity.together([one] * 3), capacity.one_node(capacity.Load(tenants=3)), strict=True
    ):
        for figure in ("cores", "memory_gb", "disk_gb"):
            assert getattr(alone, figure) == pytest.approx(getattr(all_three, figure))


def test_caches_are_settings_of_the_deployed_configurations() -> None:
    """Each cache is set: a default that follows no container is nobody's decision."""
    deployed = RenderedDeployment(Deployment.load(CHECKOUT))
    for cache in CACHES:
        backend, _, path = cache.path.partition(".")
        assert at(deployed.config(backend), path) is not None, cache.path
