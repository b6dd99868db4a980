"""The dumps' script, as the chart renders it, on a real PostgreSQL: good dumps and bad ones."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.copies import script
from tests.ran import ran

from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.helm.manifests import containers
from stackproof.repo.checkout import Checkout
from stackproof.stack.ports import PortLeases
from stackproof.toolchain import postgresql

pytestmark = pytest.mark.xdist_group("backup")

#: PostgreSQL does not run as root.
_USER = 65534 if os.geteuid() == 0 else None

#: Alpine's shell, or another that knows pipefail.
_SHELLS = (("busybox", "sh"), ("bash",))
_SHELL = next((shell for shell in _SHELLS if shutil.which(shell[0])), ())

ROWS = "SELECT count(*), md5(string_agg(t::text, ',' ORDER BY id)) FROM chat t"
OLD = "20200101T000000Z.dump"


@dataclass
class Database:
    """A server, and a folder for its dumps."""

    folder: Path
    programs: Path
    port: int
    script: str

    @property
    def url(self) -> str:
        """Of the database."""
        return f"postgresql://openwebui@127.0.0.1:{self.port}/openwebui"

    @property
    def dumps(self) -> list[str]:
        """What is kept."""
        return sorted(path.name for path in (self.folder / "dumps").glob("[!.]*"))

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program, as the server's user."""
        path = f"{self.folder}/shims:{self.programs}:/usr/bin:/bin"
        environment = {"PATH": path, "PGPASSWORD": "secret", "TMPDIR": str(self.folder), **env}
        return ran(command, env=environment, cwd=self.folder, user=_USER, group=_USER, timeout=60)

    def sql(self, statement: str, database: str = "openwebui") -> str:
        """Run a statement."""
        url = self.url.removesuffix("openwebui") + database
        done = self.run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, url)
        assert not done.returncode, done.stderr
        return done.stdout.strip()

    def backup(self, **env: str) -> subprocess.CompletedProcess[str]:
        """Run what the chart's CronJob runs."""
        given = {"DATABASE_URL": self.url, "DUMPS": f"{self.folder}/dumps", "KEEP": "3"}
        return self.run(*_SHELL, "-c", self.script, **{**given, **env})

    def refused(self, **env: str) -> str:
        """Make a dump that must fail, where one may be kept; return what is said."""
        done = self.backup(KEEP="1", **env)
        assert done.returncode
        assert self.dumps == [OLD], "no older one is deleted for it"
        return done.stderr

    def control(self, *arguments: str) -> None:
        """Start or stop the server, and wait until it has."""
        done = self.run("pg_ctl", "-D", f"{self.folder}/data", "-w", *arguments)
        assert not done.returncode, done.stderr

    def start(self) -> None:
        """Start the server."""
        options = f"-c listen_addresses=127.0.0.1 -c fsync=off -p {self.port} -k {self.folder}"
        self.control("-l", f"{self.folder}/log", "-o", options, "start")

    def shim(self, name: str, text: str) -> None:
        """Put a program of another's name before it."""
        script(self.folder / "shims" / name, text)


@pytest.fixture(scope="module")
def server(checkout: Checkout) -> Iterator[Database]:
    if not _SHELL:
        pytest.skip("neither busybox nor bash is here")
    try:
        found = postgresql.locate(checkout)
    except StackproofError as error:
        pytest.skip(f"only where there is a PostgreSQL: {error}")
    release = Deployment.load(checkout).tenant("soev")
    (job,) = [one for one in release if one.kind == "CronJob"]
    (container,) = containers(job.content)
    # Root's cache is not for others.
    folder = Path(tempfile.mkdtemp(prefix="stackproof-postgres-"))
    ports = PortLeases()
    try:
        package = folder / "postgres"
        shutil.copytree(postgresql.package(found), package, symlinks=True)
        made = Database(
            folder,
            package / found.relative_to(postgresql.package(found)),
            ports.lease(),
            container["command"][2],
        )
        for name in ("shims", "dumps"):
            (folder / name).mkdir()
        for path in (folder, folder / "dumps"):
            os.chown(path, _USER or -1, _USER or -1)
        (folder / "password").write_text("secret")
        who = ("-U", "openwebui", "-A", "scram-sha-256", "--pwfile", f"{folder}/password")
        how = ("-E", "UTF8", "--locale=C", "--no-sync")
        done = made.run("initdb", "-D", f"{folder}/data", *who, *how)
        assert not done.returncode, done.stderr
        made.start()
        yield made
    finally:
        made.control("-m", "immediate", "stop")
        ports.release()
        shutil.rmtree(folder)


@pytest.fixture
def database(server: Database) -> Iterator[Database]:
    """The database with rows, and one older dump."""
    server.sql("CREATE DATABASE openwebui", "postgres")
    server.sql(
        "CREATE TABLE chat AS SELECT i AS id, repeat(md5(i::text), 9) AS text "
        "FROM generate_series(1, 20000) AS i"
    )
    (server.folder / "dumps" / OLD).write_text("the day before's")
    yield server
    for name in server.sql("SELECT datname FROM pg_database", "postgres").split():
        if name not in {"postgres", "template0", "template1"}:
            server.sql(f'DROP DATABASE "{name}" WITH (FORCE)', "postgres")
    for folder in ("dumps", "shims"):
        for path in (server.folder / folder).iterdir():
            path.unlink()


def test_a_dump_is_made_and_restored(database: Database) -> None:
    rows = database.sql(ROWS)
    done = database.backup()
    assert not done.returncode, done.stderr
    assert len(database.dumps) == 2
    assert "1 tables" in done.stdout
    assert done.stdout.split()[-2:] == database.dumps, "its log says what can be restored"
    database.sql("DELETE FROM chat WHERE id > 7; CREATE TABLE later (id int)")
    assert database.sql(ROWS) != rows
    done = database.backup(RESTORE="newest")
    assert not done.returncode, done.stderr
    assert database.sql(ROWS) == rows
    assert database.sql("SELECT to_regclass('later')") == ""
    names = database.sql("SELECT datname FROM pg_database WHERE datname ~ '^before_'", "postgres")
    assert database.sql("SELECT count(*) FROM chat", names) == "7", "what was there is kept"


def test_what_is_set_for_the_database_is_restored(database: Database) -> None:
    """It is no part of what a dump holds of the tables, and a restored database is a new one."""
    of = "openwebui"
    database.sql("CREATE ROLE gone", "postgres")
    for setting in (
        f"ALTER DATABASE {of} SET work_mem TO '7MB'",
        f'ALTER DATABASE {of} SET search_path TO public, "$user"',
        f"ALTER ROLE {of} IN DATABASE {of} SET statement_timeout TO '5min'",
        f"ALTER ROLE gone IN DATABASE {of} SET statement_timeout TO '5min'",
        f"REVOKE CONNECT ON DATABASE {of} FROM PUBLIC",
    ):
        database.sql(setting)
    asked = (
        "SELECT current_setting('work_mem'), current_setting('search_path'), "
        f"current_setting('statement_timeout'), has_database_privilege('public', '{of}', 'connect')"
    )
    was = database.sql(asked)
    assert not database.backup().returncode
    database.sql("DROP OWNED BY gone; DROP ROLE gone", "postgres")
    done = database.backup(RESTORE="newest")
    assert not done.returncode, done.stderr
    assert 'role "gone" does not exist' in done.stderr
    assert database.sql(asked) == was == '7MB|public, "$user"|5min|f'


def test_a_database_called_postgres_is_restored_as_well(database: Database) -> None:
    """It is the one that others connect to in order to rename one."""
    url = f"{database.url.removesuffix('openwebui')}postgres"
    database.sql("CREATE TABLE chat AS SELECT 1 AS id", "postgres")
    assert not database.backup(DATABASE_URL=url).returncode
    database.sql("DELETE FROM chat", "postgres")
    done = database.backup(DATABASE_URL=url, RESTORE="newest")
    assert not done.returncode, done.stderr
    assert database.sql("SELECT count(*) FROM chat", "postgres") == "1"
    database.sql("DROP TABLE chat", "postgres")


def test_a_restore_that_fails_at_its_end_leaves_the_database(database: Database) -> None:
    rows = database.sql(ROWS)
    assert not database.backup().returncode
    url = f"{database.url.removesuffix('openwebui')}restored"
    held = f'"{database.programs}/psql" -qc "SELECT pg_sleep(20)" {url} > /dev/null 2>&1 &'
    # The fault: somebody looks at what was restored, so that it cannot be renamed.
    database.shim("pg_restore", f'"{database.programs}/pg_restore" "$@"\n{held}\nsleep 1')
    done = database.backup(RESTORE="newest")
    assert 'database "restored" is being accessed by other users' in done.stderr
    assert done.returncode
    assert database.sql(ROWS) == rows


def test_the_first_dump_is_made(database: Database) -> None:
    (database.folder / "dumps" / OLD).unlink()
    done = database.backup()
    assert not done.returncode, done.stderr
    assert len(database.dumps) == 1


def test_only_the_newest_are_kept(database: Database) -> None:
    for year in (2017, 2018, 2019):
        (database.folder / "dumps" / f"{year}0101T000000Z.dump").write_text("old")
    assert not database.backup().returncode
    assert len(database.dumps) == 3
    assert database.dumps[:2] == ["20190101T000000Z.dump", OLD]


def test_a_new_dump_is_kept_though_the_clock_was_wrong_before(database: Database) -> None:
    later = "20990101T000000Z.dump"
    (database.folder / "dumps" / later).write_text("made in the future")
    done = database.backup(KEEP="1")
    assert not done.returncode, done.stderr
    (kept,) = database.dumps
    assert kept != later


def test_what_is_put_beside_the_dumps_is_left_alone(database: Database) -> None:
    rows = database.sql(ROWS)
    for name in ("0-before-the-upgrade.dump", "precious.dump"):
        (database.folder / "dumps" / name).write_text("no dump of this Job's")
    assert not database.backup(KEEP="1").returncode
    assert len(database.dumps) == 3, "one of the Job's own, and the two"
    done = database.backup(RESTORE="newest")
    assert not done.returncode, done.stderr
    assert database.sql(ROWS) == rows


def test_a_dump_by_hand_beside_the_nightly_one(database: Database) -> None:
    """With one file for both, one cuts off what the other has found whole."""
    database.shim("pg_dump", f'"{database.programs}/pg_dump" "$@"; sleep 1.$$')
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(database.backup) for _ in range(2)]
    assert [each.result().returncode for each in both] == [0, 0], [each.result() for each in both]
    assert set(database.dumps) == {OLD, *(each.result().stdout.split(":")[0] for each in both)}
    assert not list((database.folder / "dumps").glob(".*"))


def test_what_a_killed_dump_has_left_is_removed(database: Database) -> None:
    left = {name: database.folder / "dumps" / name for name in (".part", ".part.a", ".part.now")}
    for name, path in left.items():
        path.write_text("half a dump")
        if name != ".part.now":
            os.utime(path, (0, 0))
    done = database.backup()
    assert not done.returncode, done.stderr
    assert [name for name, path in left.items() if path.exists()] == [".part.now"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("truncate -s $((size / 2)) {file}", "could not read from input file|could not uncompress"),
        ("truncate -s $((size - 1)) {file}", "could not read from input file|could not uncompress"),
        ("truncate -s 0 {file}", "input file is too short"),
    ],
)
def test_a_dump_that_is_cut_off_is_none(database: Database, fault: str, reason: str) -> None:
    real, file = database.programs / "pg_dump", f"{database.folder}/dumps/.part.*"
    by = fault.format(file=file)
    database.shim("pg_dump", f'"{real}" "$@" && size=$(stat -c %s {file}) && {by}')
    assert re.search(reason, database.refused())


def test_a_database_without_tables_is_no_dump(database: Database) -> None:
    database.sql("DROP TABLE chat")
    assert "has no table" in database.refused()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"PGPASSWORD": "another"}, "password authentication failed"),
        ({"DATABASE_URL": "postgresql://openwebui@127.0.0.1:1/openwebui"}, "Connection refused"),
    ],
)
def test_a_dump_that_reaches_no_database_fails(
    database: Database, changed: dict[str, str], reason: str
) -> None:
    database.shim("sleep", "")  # between its tries
    assert reason in database.refused(**changed)


def test_a_database_that_does_not_answer_yet_is_waited_for(database: Database) -> None:
    """A pod that has just started is not let through yet, and none of its Job's is older."""
    database.control("-m", "fast", "stop")
    with ThreadPoolExecutor() as pool:
        dumped = pool.submit(database.backup)
        time.sleep(1)  # the fault: so long there is nobody
        assert not dumped.done()
        database.start()
        done = dumped.result()
    assert not done.returncode, done.stderr
    assert len(database.dumps) == 2


@pytest.mark.parametrize("name", ["20200102T000000Z.dump", "newest"])
def test_a_dump_that_is_not_there_is_told_with_those_that_are(
    database: Database, name: str
) -> None:
    if name == "newest":
        (database.folder / "dumps" / OLD).unlink()
    rows = database.sql(ROWS)
    done = database.backup(RESTORE=name)
    assert done.returncode
    asked, there = (name, OLD) if name != "newest" else ("at all", "")
    assert done.stderr.strip() == f"there is no dump {asked}; there are: {there}".strip()
    assert database.sql(ROWS) == rows


def test_a_bad_dump_restores_nothing(database: Database) -> None:
    """The database stays as it is."""
    rows = database.sql(ROWS)
    done = database.backup(RESTORE=OLD)
    assert done.returncode
    assert database.sql(ROWS) == rows


def test_that_nobody_can_be_told_does_not_make_a_dump_bad(database: Database) -> None:
    done = database.backup(METRICS_URL="http://127.0.0.1:1/v1/metrics")
    assert not done.returncode, done.stderr
    assert "was not told" in done.stderr
    assert len(database.dumps) == 2
