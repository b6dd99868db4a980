"""From each earlier release of the tenants' chart to this one, with users' data."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.copies import added
from tests.rehearsal.conftest import say
from tests.rehearsal.docked import Docked
from tests.rehearsal.production import Production, choices
from tests.rehearsal.test_data import KEYS
from tests.rehearsal.users import ADMIN, CHATS

from stackproof.flux.diff import revision
from stackproof.helm import renderer
from stackproof.helm.manifests import Release
from stackproof.repo.checkout import Checkout
from stackproof.toolchain.images import Images
from stackproof.toolchain.postgresql import When

pytestmark = [pytest.mark.needs_docker, pytest.mark.xdist_group("rehearsal")]

CHECKOUT = Checkout.find()
NAME = "open-webui-stack"
CHART = CHECKOUT.charts / NAME
EARLIER = sorted(CHART.glob("ci/upgrade-from/*.yaml"))

#: 0.1.0 is not of this repository: tests/earlier has a chart that is shaped as it was.
SHAPED = {"0.1.0": CHECKOUT.root / "tests" / "earlier" / f"{NAME}-0.1.0"}


@contextmanager
def chart_of(values: Path) -> Iterator[Path]:
    """Give the chart that earlier values were for: of the commit that added them."""
    if values.stem in SHAPED:
        yield SHAPED[values.stem]
        return
    with revision(CHECKOUT, added(values)) as files:
        yield files.charts / NAME


def render(chart: Path, values: Path | None) -> Release:
    """Render a release as tests/unit/charts/test_combinations.py does."""
    return renderer.render(chart, [values] if values else [], release="one", namespace="here")


@pytest.fixture
def docked() -> Iterator[Docked]:
    name = f"stackproof-upgrade-{secrets.token_hex(3)}"
    made = Docked(name, secrets.token_urlsafe(12))
    yield made
    made.close()


@pytest.mark.parametrize("values", EARLIER, ids=lambda path: path.stem)
def test_an_upgrade_keeps_users_data(values: Path, docked: Docked) -> None:
    images = Images(CHECKOUT)
    keys = {key: secrets.token_hex(16) for key in KEYS}
    shaped = values.stem in SHAPED
    with chart_of(values) as chart:
        old = render(chart, None if shaped else values)
    before = {
        "postgres": images.real("postgres", When.BEFORE),
        "weaviate": images.real("weaviate", When.BEFORE if shaped else When.NOW),
        "open-webui": images.real("open-webui", When.BEFORE if shaped else When.NOW),
    }
    docked.run(old, before, keys)
    docked.fill()
    there = docked.snapshot()
    now = {
        "postgres": images.real("postgres"),
        # That of 0.1.0 stays where it is (flux/tenants/soev).
        "weaviate": before["weaviate"],
        "open-webui": images.real("open-webui"),
    }
    # A tenant that goes on from 0.1.0 says what its Weaviate is called (flux/tenants/soev).
    release = render(CHART, values)
    seconds = docked.run(release, now, keys)
    after = docked.snapshot()
    say(f"{values.stem}: before {there}; after {after}; away for {seconds:.0f} s")
    assert list(there.lost(after)) == []
    assert docked.chats_of(ADMIN) == CHATS


#: A tenant that began with this repository's chart; 0.1.0 is in test_merge.py.
TENANT = "enterprise-a"


@pytest.mark.parametrize(
    "values", [each for each in EARLIER if each.stem not in SHAPED], ids=lambda path: path.stem
)
def test_an_upgrade_on_a_cluster_keeps_users_data(values: Path, production: Production) -> None:
    tenant = Production(production.kind, production.deployment, tenant=TENANT)
    images = choices(CHECKOUT, When.NOW, vectors=When.NOW)
    production.kind.load(sorted({each.reference for each in images.values()}))
    tenant.with_images(images)
    tenant.installer.prerequisites()
    with chart_of(values) as chart:
        tenant.install_earlier(chart, values)
    tenant.fill()
    there, claims = tenant.snapshot(), tenant.claims()
    with tenant.downtime() as away:
        tenant.merge()
    after = tenant.snapshot()
    say(f"{values.stem} on a cluster: {there}; {after}; away for {away.seconds:.0f} s")
    assert not away.away, "its users still have no answer"
    assert list(there.lost(after)) == []
    assert claims.items() <= tenant.claims().items(), "a claim is another one, or gone"
    assert tenant.orphans() == set()
    assert tenant.chats_of(ADMIN) == CHATS
    pods = tenant.pods()
    tenant.merge()
    assert tenant.pods() == pods, "the same once more replaces a pod"
