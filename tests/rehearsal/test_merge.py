"""In place from chart 0.1.0, and back again, with users' data: the steps of docs/migration.md.

Each test goes on from where the one before it has ended.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.rehearsal.conftest import say
from tests.rehearsal.production import ROLLED_S, TENANT, Downtime, Production, choices
from tests.rehearsal.users import ADMIN, CHATS, USER, Snapshot

from stackproof.checkout import Checkout
from stackproof.deployment import TENANT_RELEASE
from stackproof.postgresql import When
from stackproof.stack.gitops import HELM, Flux

pytestmark = pytest.mark.xdist_group("rehearsal")


@pytest.fixture(scope="module")
def before(production: Production) -> Snapshot:
    """What there was before anything was changed."""
    found = production.snapshot()
    say(f"before: {found}; claims {sorted(production.claims())}")
    return found


@pytest.fixture(scope="module")
def claims(production: Production) -> dict[str, str]:
    """The claims of before, each with its volume."""
    return production.claims()


@contextmanager
def change(
    production: Production, before: Snapshot, claims: dict[str, str], what: str
) -> Iterator[Downtime]:
    """Change something; afterwards everything that there was before is there, for its users too."""
    with production.downtime() as away:
        yield away
        production.ready()
    assert not away.away, "its users still have no answer"
    now = production.snapshot()
    say(f"{what}: {now}; not reachable for {away.seconds:.0f} s ({away.asked} questions)")
    assert list(before.lost(now)) == []
    assert claims.items() <= production.claims().items(), "a claim is another one, or gone"
    assert production.orphans() == set()
    assert production.chats_of(ADMIN) == CHATS
    assert production.chats_of(USER) == []


def test_before_it_is_as_production_is(production: Production, before: Snapshot) -> None:
    """The control: there is something to lose, and it was written by root."""
    assert len(before.rows["chat"]) == 8
    assert len(before.rows["much"]) == 2000
    assert len(before.files) == 3
    assert len(before.vectors) == 20
    assert len(set(before.vectors.values())) == 20
    assert len(production.claims()) == 3
    assert production.orphans() == set()
    assert before.lost(before) is not None
    assert list(before.lost(Snapshot({}, {}, {}))), "an empty one is told from it"
    labels = production.kube.get("v1", "Namespace", production.namespace)["metadata"]["labels"]
    assert not [label for label in labels if label.startswith("pod-security")]
    pods = production.kube.pods(production.namespace)
    assert not any(pod["spec"]["securityContext"] for pod in pods)
    assert production.sql("SHOW server_version") == "16.2"


# --- by helm upgrade ---


def test_helm_upgrade_keeps_everything(
    production: Production, before: Snapshot, claims: dict[str, str]
) -> None:
    production.keep_secrets()
    production.installer.prerequisites()
    with change(production, before, claims, "merged by helm upgrade") as away:
        production.merge()
    assert away.seconds > 0, "one application stops before the next starts: nobody saw it"
    assert production.sql("SHOW server_version") == "16.14"


def test_a_second_helm_upgrade_changes_nothing(
    production: Production, before: Snapshot, claims: dict[str, str]
) -> None:
    pods = production.pods()
    with change(production, before, claims, "helm upgrade once more"):
        production.merge()
    assert production.pods() == pods


def test_helm_rollback_leads_back(
    production: Production, before: Snapshot, claims: dict[str, str]
) -> None:
    with change(production, before, claims, "back with helm rollback"):
        _rollback(production)
    assert production.sql("SHOW server_version") == "16.2"
    pods = production.kube.pods(production.namespace)
    assert not any(pod["spec"]["securityContext"] for pod in pods)


def _rollback(production: Production) -> None:
    # Else the Secret of the old name goes with the ExternalSecret that has become its owner.
    api = "external-secrets.io/v1"
    for external in production.kube.listed(api, "ExternalSecret", production.namespace):
        production.kube.delete(external, propagation="Orphan")
    production.installer.run_helm(
        *("rollback", TENANT_RELEASE, "1", "--namespace", production.namespace),
        "--server-side=false",
    )


# --- by Flux ---


@pytest.fixture(scope="module")
def flux(production: Production) -> Iterator[Flux]:
    """The repository's own tree, with the one tenant that production has."""
    made = Flux(production.installer)
    tenants = made.repository.path / "flux" / "tenants"
    for folder in tenants.iterdir():
        if folder.name != TENANT:
            shutil.rmtree(folder)
    yield made
    made.close()


def test_flux_keeps_everything(
    production: Production, flux: Flux, before: Snapshot, claims: dict[str, str]
) -> None:
    with change(production, before, claims, "merged by Flux"):
        flux.install()
        flux.ready(within_s=ROLLED_S)
    assert production.sql("SHOW server_version") == "16.14"


def test_flux_once_more_changes_nothing(
    production: Production, flux: Flux, before: Snapshot, claims: dict[str, str]
) -> None:
    pods = production.pods()
    with change(production, before, claims, "reconciled once more"):
        flux.reconcile(HELM, "HelmRelease", TENANT_RELEASE, production.namespace)
        flux.fetched(flux.push("Nothing new"))
        flux.ready(within_s=ROLLED_S)
    assert production.pods() == pods


@pytest.mark.usefixtures("flux")
def test_from_flux_helm_rollback_leads_back(
    production: Production, before: Snapshot, claims: dict[str, str]
) -> None:
    kube = production.kube
    release = kube.get(HELM, "HelmRelease", TENANT_RELEASE, production.namespace)
    kube.patch(release, {"spec": {"suspend": True}})
    with change(production, before, claims, "back from Flux with helm rollback"):
        _rollback(production)
    kube.patch(release, {"spec": {"suspend": False}})


# --- the application's own next version ---


def test_the_newer_application_starts_on_the_old_database(
    production: Production, checkout: Checkout, before: Snapshot, claims: dict[str, str]
) -> None:
    production.with_images(choices(checkout, When.NOW))
    with change(production, before, claims, "with the newer application"):
        production.merge()
