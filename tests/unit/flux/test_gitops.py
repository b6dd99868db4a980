"""What Flux is given in a test cluster is production's tree, with patches laid over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from stackproof.flux.deployment import Deployment
from stackproof.flux.releases import HelmRelease
from stackproof.flux.tree import build
from stackproof.kube.client import Kube
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions
from stackproof.stack.gitops import CLUSTER, Flux
from stackproof.stack.install import CONTROLLERS, OPERATORS, Installer
from stackproof.toolchain.images import How, ImageChoice


@pytest.fixture(scope="module")
def pushed(checkout: Checkout) -> Iterator[Checkout]:
    names = (*Versions.load(checkout).images, *OPERATORS, *CONTROLLERS)
    choices = {name: ImageChoice(name, f"example.org/{name}", "1", How.REAL) for name in names}
    kube = MagicMock(Kube)  # nothing is asked of it
    flux = Flux(Installer(kube, Path("none"), Deployment.load(checkout), choices))
    yield Checkout(flux.repository.path)
    flux.close()


def releases(checkout: Checkout, cluster: str) -> dict[str, HelmRelease]:
    tree = build(checkout, cluster)
    assert [p for step in tree.steps for p in step.problems] == []
    found = {f"{r.manifest.namespace}/{r.manifest.name}": r for r in tree.releases.values()}
    assert [p for release in found.values() for p in release.problems] == []
    return found


def test_each_release_is_productions(checkout: Checkout, pushed: Checkout) -> None:
    """The same objects by the same names: a patch replaces none of the tree's own."""
    production, tried = releases(checkout, "production"), releases(pushed, CLUSTER)
    here = {name: one for name, one in production.items() if one.rendered is not None}
    assert tried.keys() == here.keys()
    for name, release in here.items():
        there = tried[name]
        assert release.rendered is not None and there.rendered is not None
        assert {o.ref for o in there.rendered} == {o.ref for o in release.rendered}, name
        settings = [{**one.manifest["spec"], "values": None} for one in (there, release)]
        assert settings[0] == settings[1], name
