"""Go: finding one that is new enough (else getting the pinned one with pip), and `go build`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import version_key

from . import pip
from .cache import Entry, cache_root

OLDEST = "1.26"
"""Lowest version of Go that builds the programs."""

FRUGAL = "STACKPROOF_FRUGAL"
"""Set where disks are small: each build has a cache of its own, which goes with it."""

_USUAL = "/usr/local/go/bin/go"
_TICK_SECONDS = 0.2
_TAIL_LINES = 15

# What a user may have set for other work, and what would change what we build or break it.
_DROPPED = {"GOROOT", "GOOS", "GOARCH", "GOAMD64", "GOARM", "GOARM64", "GOEXPERIMENT", "GOBIN"}
_FIXED = {
    "CGO_ENABLED": "0",
    "GO111MODULE": "on",
    # Without -buildvcs=false, Go asks git about the checkout and fails where git does.
    "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
}

# What Go says where the cause is not the code, and what to do about it.
_CAUSES = (
    (
        r"disabled by GOPROXY=off",
        "Unset GOPROXY, or let it name a proxy that has the modules, then run this again.",
    ),
    (
        r"no space left on device|disk quota exceeded",
        "The disk is full: free some space (Go's own cache, `go env GOCACHE`, may take 20 GB;"
        " `go clean -cache` empties it), then run this again: it goes on where it stopped.",
    ),
    (
        r"dial tcp|no such host|i/o timeout|connection re(fused|set)|TLS handshake|proxyconnect"
        r"|network is unreachable|unexpected EOF|50[234] ",
        "The modules could not be downloaded: check the network and GOPROXY, then run this again:"
        " it goes on where it stopped.",
    ),
    (
        r"checksum mismatch|missing go\.sum entry|updates to go\.(mod|sum) needed",
        "go.mod and go.sum do not fit what was downloaded: make the pins again with tools/pin.py.",
    ),
    (
        r"signal: killed|cannot allocate memory|out of memory",
        "Too little memory: end other programs, or build with GOMAXPROCS=1.",
    ),
    (
        r"requires go >= ",
        "A newer Go is needed than the one found: update it, or take it off PATH.",
    ),
)


def go_version(go: Path) -> str | None:
    """Return the version of a Go command, e.g. `1.26.8`, or None where it does not work."""
    try:
        done = _go(go, "version", timeout_s=30)
    except (OSError, subprocess.SubprocessError):
        return None
    match = None if done.returncode else re.search(r"\bgo(\d+(?:\.\d+)+)", done.stdout)
    return match[1] if match else None


def _go(
    go: Path, *words: str, folder: Path | None = None, timeout_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a Go command and return what it says."""
    return subprocess.run(
        [go, *words],
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def find_go(checkout: Checkout, at_least: str, say: Callable[[str], None]) -> Path:
    """Return a Go command of at least that version: the user's, else the pinned wheel's.

    Args:
        checkout: Whose `tools/go.lock` pins the wheel.
        at_least: The version that go.mod asks for.
        say: Is told in a sentence what takes a while.

    Raises:
        StackproofError: There is none and none could be had.
    """
    needed = max(version_key(OLDEST), version_key(at_least))
    for command in (shutil.which("go"), _USUAL):
        version = go_version(Path(command)) if command else None
        if command and version and version_key(version) >= needed:
            return Path(command)
    return _wheel(checkout, say)


def _wheel(checkout: Checkout, say: Callable[[str], None]) -> Path:
    """Return the Go of the wheel that tools/go.lock pins, installed into the cache."""
    lock = checkout.tools / "go.lock"
    try:
        key = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise StackproofError(
            f"there is no Go >= {OLDEST}, and the pin of one cannot be read: {error.strerror}",
            where=checkout.show(lock),
            todo="Install Go and put it on PATH.",
        ) from error
    entry = Entry(cache_root() / "go", f"{key}-{platform.machine()}", "go/bin/go")
    if not entry.ready():
        say(f"no Go >= {OLDEST} found: getting the one that {checkout.show(lock)} pins")
        entry.make(lambda into, _: _install(lock, into), say)
    return entry.path


def _install(lock: Path, into: Path) -> None:
    todo = f"Install Go >= {OLDEST} yourself and put it on PATH."
    if said := pip.failure("install", lock, ["--target", str(into)]):
        raise StackproofError(f"pip could not install Go\n{said}", where=str(lock), todo=todo)
    if go_version(into / "go" / "bin" / "go") is None:
        what = "the Go that pip installed does not run here"
        raise StackproofError(what, where=str(lock), todo=todo)


def module_folder(go: Path, pin: Path, module: str) -> Path:
    """Return the folder of a module's source, downloaded where it must be and checked by go.sum.

    Raises:
        StackproofError: It cannot be had.
    """
    done = _go(go, "mod", "download", "-json", module, folder=pin)
    found = json.loads(done.stdout or "{}")
    if done.returncode or "Dir" not in found:
        raise StackproofError(
            f"the source of {module} cannot be downloaded: "
            f"{found.get('Error') or done.stderr.strip()}",
            where=str(pin),
            todo="Check the network and GOPROXY.",
        )
    return Path(found["Dir"])


def build(
    go: Path,
    source: Path,
    package: str,
    output: Path,
    *,
    ldflags: str,
    tags: str,
    log: Path,
    lock: int,
    tick: Callable[[], None],
) -> None:
    """Run `go build`; where it is interrupted, end it with all its children.

    Args:
        go: The command.
        source: Folder of go.mod and go.sum.
        package: Import path of the main package, or `.`.
        output: The binary; Go's scratch folder is made beside it.
        ldflags: Flags of the linker.
        tags: Build tags, with commas.
        log: Is written what Go says.
        lock: Descriptor that the build keeps open, so that a lock outlives a parent that is killed.
        tick: Called several times a second.

    Raises:
        StackproofError: The build failed; the message has the end of the log.
    """
    scratch = output.parent / "scratch"
    scratch.mkdir()
    # What the linker leaves out need not be compiled: 7 % less time.
    flags = ["-ldflags", ldflags, "-gcflags", "all=-dwarf=false", "-tags", tags, "-o", str(output)]
    command = [str(go), "build", *flags, package]
    with log.open("wb") as file, terminable():
        environment = _environment() | {"GOTMPDIR": str(scratch)}
        if os.environ.get(FRUGAL):
            environment["GOCACHE"] = str(scratch / "cache")
        status = _run(command, source, environment, file.fileno(), lock, tick)
    if status:
        raise _failure(log, source, status)
    shutil.rmtree(scratch, ignore_errors=True)


def check(go: Path, source: Path) -> str:
    """Run `go vet` and `go test` on all packages of a module; return what they report.

    Go keeps what came of both until a file changes.
    """
    told = []
    for verb in ("vet", "test"):
        done = _go(go, verb, "./...", folder=source)
        told += [done.stdout + done.stderr] if done.returncode else []
    return "\n".join(told)


def _environment() -> dict[str, str]:
    """Return the environment that Go runs in: the user's proxy and caches, our settings."""
    kept = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    return kept | _FIXED


def _run(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    output: int,
    lock: int,
    tick: Callable[[], None],
) -> int:
    process = None
    try:
        with _uninterrupted():
            try:
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # Its own group: Ctrl-C reaches us alone, and we end compilers and linker too.
                    start_new_session=True,
                    pass_fds=[lock],
                )
            except OSError as error:
                raise StackproofError(
                    f"cannot be run: {error.strerror}", where=command[0]
                ) from error
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_TICK_SECONDS)
            tick()
    finally:
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold signals back: one between a child's start and the `try` that ends it would orphan it."""
    held: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if main else ()
    usual = {number: signal.getsignal(number) for number in numbers}
    caught = [number for number, handler in usual.items() if callable(handler)]
    for number in caught:
        signal.signal(number, lambda number, _: held.append(number))
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, usual[number])
        for late in held:
            signal.raise_signal(late)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise, where nobody has said what else they should do."""
    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGHUP) if main else ()
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise SystemExit(128 + number)


def _failure(log: Path, source: Path, status: int) -> StackproofError:
    """Return the error that says why a build failed."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if not line.startswith("go: downloading ")]
    for pattern, todo in _CAUSES:
        # One line says it, though Go may repeat it for each package.
        if cause := next((line for line in lines if re.search(pattern, line)), None):
            return StackproofError(f"go build failed: {cause}", where=str(source), todo=todo)
    told = "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:]) or "    (it said nothing)"
    return StackproofError(
        f"go build failed (status {status}):\n{told}",
        where=str(source),
        todo=f"The whole log is {log}.",
    )
