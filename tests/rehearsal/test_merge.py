"""In place from chart 0.1.0, and back again, with users' data: the steps of docs/migration.md.

Each test goes on from where the one before it has ended.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.ran import ran
from tests.rehearsal.conftest import say
from tests.rehearsal.production import ROLLED_S, TENANT, Downtime, Production, choices
from tests.rehearsal.users import ADMIN, CHATS, USER, Snapshot

from stackproof.flux.deployment import TENANT_RELEASE
from stackproof.flux.objects import FLUX_NAMESPACE
from stackproof.flux.tree import build_tenant
from stackproof.migrate import deployed
from stackproof.migrate.checks import MIGRATION as CHECKS
from stackproof.migrate.checks import Change, merged
from stackproof.repo.checkout import Checkout
from stackproof.stack.gitops import HELM, KUSTOMIZE, Flux
from stackproof.toolchain.postgresql import When
from stackproof.twins import MIGRATION, Twin

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


# --- what the check says of it, asked of the live release ---


@pytest.fixture(scope="module")
def store(production: Production, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The secret store, filled with the present values as docs/migration.md has it done."""
    production.keep_secrets()
    production.installer.prerequisites()
    file = tmp_path_factory.mktemp("store") / "store.yaml"
    file.write_text(yaml.safe_dump(production.installer.store.known))
    return file


def _check(production: Production, store: Path) -> tuple[int, str]:
    """Run `stackproof migrate check` on the cluster, return its exit code and what it printed."""
    cluster = (
        "--context",
        production.kind.context,
        "--kubeconfig",
        production.kind.kubeconfig_path,
    )
    command = (sys.executable, "-m", "stackproof.cli", "migrate", "check")
    done = ran([*command, *cluster, "--store", store])
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


@pytest.mark.usefixtures("before")
def test_migrate_check_is_green(production: Production, store: Path) -> None:
    code, said = _check(production, store)
    say(f"migrate check: {said.splitlines()[-1]}")
    # Of the old application's image here, nobody knows that the new one is of the same line.
    open_questions = re.findall(r"^not compared (.*)$", said, re.MULTILINE)
    assert [text for text in open_questions if "the migration" not in text] == [], said
    assert code == (2 if open_questions else 0), said
    for claim in production.claims():
        assert re.search(rf"^kept +PersistentVolumeClaim/{claim} ", said, re.MULTILINE), said


def test_migrate_check_is_red_where_the_store_has_another_password(
    production: Production, store: Path, tmp_path: Path
) -> None:
    other = tmp_path / "store.yaml"
    key = f"{production.prefix}-postgres-password"
    other.write_text(yaml.safe_dump({**yaml.safe_load(store.read_text()), key: "another"}))
    code, said = _check(production, other)
    assert code == 1
    assert "in the store is not the postgres-password of the cluster" in said


@pytest.mark.parametrize(
    "twin",
    # But for those that change the store.
    [twin for twin in MIGRATION if not any("earlier" in edit.file for edit in twin.edits)],
    ids=lambda twin: twin.name,
)
def test_migrate_check_is_red(
    twin: Twin, production: Production, checkout: Checkout, store: Path
) -> None:
    """Each way to lose what the live release has, for the stated reason."""
    live = deployed.from_cluster(
        production.kube, release=TENANT_RELEASE, namespace=production.namespace
    )
    with twin.deployment(checkout) as faulty:
        found = merged(build_tenant(faulty.checkout, TENANT), live.namespace, live.name)
    assert found is not None
    old = replace(live, store=deployed.read_store(store))
    change = Change(old, found.manifests, found.level, apply=found.apply)
    said = "\n".join(problem for check in CHECKS for problem in check.find(change))
    assert re.search(twin.reason, said), said


# --- by helm upgrade ---


@pytest.mark.usefixtures("store")
def test_helm_upgrade_keeps_everything(
    production: Production, before: Snapshot, claims: dict[str, str]
) -> None:
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
        flux.fetched(flux.push("Nothing new"))
        flux.ready(within_s=ROLLED_S)
        flux.reconciled(HELM, "HelmRelease", TENANT_RELEASE, production.namespace)
    assert production.pods() == pods


# --- a backup, and the way back from it ---

#: What the commands take of the flux program: `flux suspend KIND NAME -n NAMESPACE`.
_FLUX = """flux() { [ $1 = suspend ] && to=true || to=false
kubectl patch "$2" "$3" "$4" "$5" --type=merge -p "{\\"spec\\": {\\"suspend\\": $to}}"; }"""


def _commands(checkout: Checkout, heading: str) -> str:
    """Return the commands below a heading of docs/operations.md."""
    text = (checkout.root / "docs" / "operations.md").read_text(encoding="utf-8")
    block = re.search(rf"^## {heading}$.*?^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1].replace("$ ", "")


@pytest.mark.usefixtures("flux")
def test_a_dump_is_restored_as_documented(
    production: Production, checkout: Checkout, before: Snapshot, claims: dict[str, str]
) -> None:
    def follow(heading: str) -> str:
        commands = _commands(checkout, heading)
        for name, value in (
            ("NAMESPACE", production.namespace),
            ("PREFIX", "open-webui-open-webui-stack"),
        ):
            commands = commands.replace(name, value)
        done = ran(
            ["bash", "-euo", "pipefail", "-c", f"{_FLUX}\n{commands}"],
            env={**os.environ, "KUBECONFIG": str(production.kind.kubeconfig_path)},
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    assert re.search(r"\d+ tables, \d+ bytes; 1 are kept", follow("Dump now"))
    for which in ("first", "second"):  # the first Job is still there
        production.sql("DELETE FROM much WHERE id > 1000; DELETE FROM chat")
        assert len(list(before.lost(production.snapshot()))) == 1008
        with change(production, before, claims, f"restored from a dump, the {which} time"):
            follow("Restore the database")
    databases = production.sql("SELECT datname FROM pg_database").split()
    assert [name for name in databases if name.startswith("before_")], databases


@pytest.mark.usefixtures("flux")
def test_from_flux_helm_rollback_leads_back(
    production: Production, before: Snapshot, claims: dict[str, str]
) -> None:
    kube = production.kube
    for suspended in (
        kube.get(KUSTOMIZE, "Kustomization", f"tenant-{TENANT}", FLUX_NAMESPACE),
        kube.get(HELM, "HelmRelease", TENANT_RELEASE, production.namespace),
    ):
        kube.patch(suspended, {"spec": {"suspend": True}})
    with change(production, before, claims, "back from Flux with helm rollback"):
        _rollback(production)


# --- the application's own next version ---


def test_the_newer_application_starts_on_the_old_database(
    production: Production, checkout: Checkout, before: Snapshot, claims: dict[str, str]
) -> None:
    production.with_images(choices(checkout, When.NOW))
    with change(production, before, claims, "with the newer application"):
        production.merge()
