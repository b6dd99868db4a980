"""Users' data through the merge and back, in Docker: what the volumes and the programs do.

Each test goes on from where the one before it has ended.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
from tests.rehearsal.conftest import say
from tests.rehearsal.docked import Docked
from tests.rehearsal.production import CHART, TENANT
from tests.rehearsal.users import ADMIN, CHATS, USER, Snapshot

from stackproof.errors import StackproofError
from stackproof.flux.deployment import TENANT_RELEASE, Deployment
from stackproof.helm import renderer
from stackproof.helm.manifests import Release
from stackproof.repo.checkout import Checkout
from stackproof.toolchain.images import ImageChoice, Images
from stackproof.toolchain.postgresql import When

pytestmark = [pytest.mark.needs_docker, pytest.mark.xdist_group("rehearsal")]


KEYS = (
    *("webui-secret-key", "postgres-password", "admin-password", "openai-api-key"),
    *("rag-openai-api-key", "gateway-api-key", "gateway-password"),
)


@dataclass
class Place:
    """Both releases, their images, and where they run."""

    docked: Docked
    old: Release
    new: Release
    before: Mapping[str, ImageChoice]
    merged: Mapping[str, ImageChoice]
    newer: Mapping[str, ImageChoice]
    secrets: Mapping[str, str]


@pytest.fixture(scope="module")
def place(checkout: Checkout) -> Iterator[Place]:
    images = Images(checkout)
    deployment = Deployment.load(checkout)
    namespace = deployment.registry.get(TENANT).namespace
    merged = {
        "postgres": images.real("postgres"),
        # It stays where it is (flux/tenants/soev).
        "weaviate": images.real("weaviate", When.BEFORE),
        "open-webui": images.real("open-webui", When.BEFORE),
    }
    docked = Docked(f"stackproof-rehearsal-{secrets.token_hex(3)}", secrets.token_urlsafe(12))
    try:
        yield Place(
            docked,
            renderer.render(CHART, [], release=TENANT_RELEASE, namespace=namespace),
            deployment.tenant(TENANT),
            {
                "postgres": images.real("postgres", When.BEFORE),
                "weaviate": images.real("weaviate", When.BEFORE),
                "open-webui": images.real("open-webui", When.BEFORE),
            },
            merged,
            {**merged, "open-webui": images.real("open-webui", When.NOW)},
            {key: secrets.token_hex(16) for key in KEYS},
        )
    finally:
        docked.close()


@pytest.fixture(scope="module")
def before(place: Place) -> Snapshot:
    """What there was before anything was changed."""
    place.docked.run(place.old, place.before, place.secrets)
    place.docked.fill()
    found = place.docked.snapshot()
    say(f"before: {found}")
    return found


def _everything_is_there(place: Place, before: Snapshot, what: str, seconds: float) -> None:
    now = place.docked.snapshot()
    say(f"{what}: {now}; away for {seconds:.0f} s")
    assert list(before.lost(now)) == []
    assert place.docked.chats_of(ADMIN) == CHATS
    assert place.docked.chats_of(USER) == []


def test_before_it_is_as_production_is(place: Place, before: Snapshot) -> None:
    """The control: there is something to lose, written by root."""
    assert len(before.rows["chat"]) == 8
    assert len(before.rows["much"]) == 2000
    assert len(before.files) == 3
    assert len(set(before.vectors.values())) == 20
    assert len(list(before.lost(Snapshot({}, {}, {})))) > 20, "an empty one is told from it"
    assert {name: place.docked.user(name) for name in ("postgres", "open-webui")} == {
        "postgres": "70",
        "open-webui": "0",
    }
    assert place.docked.sql("SHOW server_version") == "16.2"


def test_the_merge_keeps_everything(place: Place, before: Snapshot) -> None:
    seconds = place.docked.run(place.new, place.merged, place.secrets)
    _everything_is_there(place, before, "merged", seconds)
    assert place.docked.user("open-webui") == "1000"
    assert place.docked.sql("SHOW server_version") == "16.14"
    mode = place.docked.execute("postgres", ["sh", "-c", "stat -c '%a %u' $PGDATA"])
    assert mode.strip() == "700 70", "PostgreSQL refuses what a group may write"


def test_users_go_on_working_on_what_root_wrote(place: Place, before: Snapshot) -> None:
    """The control of the group: a file beside root's files."""
    with place.docked.application() as ask:
        admin = {"email": ADMIN, "password": place.docked.password}
        token = ask("POST", "/api/v1/auths/signin", admin)["token"]
        made = ask.upload("/api/v1/files/?process=false", "later.txt", b"later", token)
        content = ask.text("GET", f"/api/v1/files/{made['id']}/content", None, token)
        assert content == "later"
    assert len(place.docked.snapshot().files) == len(before.files) + 1


def test_a_second_run_changes_nothing(place: Place, before: Snapshot) -> None:
    seconds = place.docked.run(place.new, place.merged, place.secrets)
    _everything_is_there(place, before, "once more", seconds)


def test_the_way_back_keeps_everything(place: Place, before: Snapshot) -> None:
    seconds = place.docked.run(place.old, place.before, place.secrets)
    _everything_is_there(place, before, "back at 0.1.0", seconds)
    assert place.docked.user("open-webui") == "0"
    assert place.docked.sql("SHOW server_version") == "16.2"


def test_weaviate_under_another_name_does_not_start_and_loses_nothing(
    place: Place, before: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"weaviate": {"clusterHostname": "weaviate-0"}}
    renamed = Deployment.load(Checkout.find()).with_values(tenant=[values]).tenant(TENANT)
    with monkeypatch.context() as impatient:
        impatient.setattr("tests.rehearsal.docked._READY_S", 60.0)
        with pytest.raises(StackproofError, match="HTTP 503"):
            place.docked.run(renamed, place.merged, place.secrets)
    seconds = place.docked.run(place.new, place.merged, place.secrets)
    _everything_is_there(place, before, "under its own name again", seconds)


def test_all_versions_of_weaviate_at_once(place: Place, before: Snapshot) -> None:
    """More than its makers promise: one minor version at a time, and no way back."""
    jumped = {**place.merged, "weaviate": Images(Checkout.find()).real("weaviate", When.NOW)}
    for what, images in (("Weaviate at once", jumped), ("Weaviate back", place.merged)):
        seconds = place.docked.run(place.new, images, place.secrets)
        _everything_is_there(place, before, what, seconds)


@pytest.fixture(scope="module")
def dump(place: Place) -> str:
    """A dump of before the newer application, on the volume: the first step of the merge."""
    path = "/var/lib/postgresql/data/before.dump"
    _postgres(place, "pg_dump", "--format=custom", f"--file={path}", "openwebui")
    return path


def _postgres(place: Place, program: str, *argv: str) -> None:
    place.docked.execute("postgres", [program, "-h", "127.0.0.1", "-U", "openwebui", *argv])


@pytest.mark.usefixtures("dump")
def test_the_newer_application_starts_on_the_old_database(place: Place, before: Snapshot) -> None:
    seconds = place.docked.run(place.new, place.newer, place.secrets)
    _everything_is_there(place, before, "with the newer application", seconds)


def test_from_there_only_a_dump_leads_back(place: Place, before: Snapshot, dump: str) -> None:
    """The older application does not start on a database that a newer one has migrated."""
    docked = place.docked
    with pytest.raises(StackproofError, match=r"column config\.id does not exist|Can't locate rev"):
        docked.run(place.new, place.merged, place.secrets)
    docked.stop("open-webui")
    _postgres(place, "dropdb", "openwebui", "--maintenance-db=postgres")
    _postgres(place, "createdb", "openwebui", "--maintenance-db=postgres")
    _postgres(place, "pg_restore", "--exit-on-error", "--dbname=openwebui", dump)
    seconds = docked.run(place.old, place.before, place.secrets)
    _everything_is_there(place, before, "back at 0.1.0 from a dump", seconds)
