"""The Go programs that run on this machine: found if somebody has them, else built once.

tools/NAME pins a program (go.mod, go.sum). It is looked for in this order: the environment variable
STACKPROOF_NAME, the cache of what was built here, `PATH` (at exactly the pinned version). Where it
is nowhere, it is built into the cache, under a key made of whatever the binary is made from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions

from . import golang
from .cache import Entry, cache_root


@dataclass(frozen=True, slots=True)
class Recipe:
    """What building and recognising a program takes, beside its pin.

    Args:
        minutes: How long a build takes with nothing cached, measured on two cores.
        variables: Variables that the linker sets, so that the program knows its version:
            `{version}` is the pinned one without `v`.
        ask: Arguments that make the program print its version; None where it cannot.
        cluster: Whether nothing needs it but a cluster.
    """

    minutes: float = 1
    variables: Mapping[str, str] = field(default_factory=dict)
    ask: Sequence[str] | None = None
    cluster: bool = False


RECIPES: Final[Mapping[str, Recipe]] = {
    "actionlint": Recipe(1, {}, ["-version"]),
    "alloy": Recipe(
        10, {"github.com/grafana/alloy/internal/build.Version": "v{version}"}, ["--version"]
    ),
    "caddy": Recipe(
        1, {"github.com/caddyserver/caddy/v2.CustomVersion": "v{version}"}, ["version"]
    ),
    "external-secrets": Recipe(3, cluster=True),
    "flux": Recipe(1),
    "helm": Recipe(
        1, {"helm.sh/helm/v4/internal/version.version": "v{version}"}, ["version", "--short"]
    ),
    "helm-controller": Recipe(2, cluster=True),
    "kind": Recipe(1, {}, ["version"], cluster=True),
    "kustomize-controller": Recipe(2, cluster=True),
    "loki": Recipe(
        4, {"github.com/grafana/loki/v3/pkg/util/build.Version": "{version}"}, ["-version"]
    ),
    "mimir": Recipe(
        2, {"github.com/grafana/mimir/pkg/util/version.Version": "{version}"}, ["-version"]
    ),
    "render": Recipe(1),
    "source-controller": Recipe(2, cluster=True),
    "standin": Recipe(1, cluster=True),
    "telemetrygen": Recipe(1),
    "tempo": Recipe(2, {"main.Version": "{version}"}, ["-version"]),
}


@dataclass(frozen=True, slots=True)
class Program:
    """A program that can be run.

    Args:
        name: Its name: that of its folder in tools/.
        version: What runs, without `v`: as the program itself says where the environment names
            it, else the pinned one; of our own a digest of its source.
        path: The binary, or None while it is neither found nor built.
        how: How it was found.
    """

    name: str
    version: str
    path: Path | None
    how: str


def names(checkout: Checkout | None = None, *, cluster: bool = True) -> tuple[str, ...]:
    """Return the programs that tools/ pins, those first that take the least time to build.

    Args:
        checkout: Whose pins count; that of the working directory if not given.
        cluster: Whether to name those too that only a cluster needs.
    """
    checkout = checkout or Checkout.own()
    found = (path.parent.name for path in checkout.tools.glob("*/go.mod"))
    recipes = {name: RECIPES.get(name, Recipe()) for name in found}
    wanted = [name for name, recipe in recipes.items() if cluster or not recipe.cluster]
    return tuple(sorted(wanted, key=lambda name: (recipes[name].minutes, name)))


def find(name: str, checkout: Checkout | None = None) -> Path:
    """Return the path of a program, which is built first if it must be.

    Raises:
        StackproofError: There is no such program, or it cannot be built.
    """
    path = locate(name, checkout).path
    assert path is not None
    return path


def locate(
    name: str,
    checkout: Checkout | None = None,
    *,
    build: bool = True,
    console: Console | None = None,
) -> Program:
    """Return a program, and how it was found.

    Args:
        name: A folder of tools/.
        checkout: Whose pins count; that of the working directory if not given.
        build: Build it where it is nowhere; else its `path` is then None.
        console: Shows the progress; standard error if not given.

    Raises:
        StackproofError: There is no such program, or it cannot be built.
    """
    pin = _Pin.read(checkout or Checkout.own(), name)
    variable = f"STACKPROOF_{name.upper().replace('-', '_')}"
    if override := os.environ.get(variable):
        todo = f"Correct {variable}, or unset it: then the pinned program is used."
        return given(name, override, variable, todo)
    entry = pin.entry
    if not entry.ready():
        if on_path := _on_path(pin):
            return Program(name, pin.version, on_path, "on PATH")
        if not build:
            return Program(name, pin.version, None, "not built yet")
        _build(pin, console or Console(stderr=True))
    return Program(name, pin.version, entry.path, "built here")


def source(name: str, checkout: Checkout | None = None) -> Path:
    """Return the folder of a program's own source, as its module was released.

    Raises:
        StackproofError: It is a program of ours, or its module cannot be had.
    """
    checkout = checkout or Checkout.own()
    pin = _Pin.read(checkout, name)
    if not pin.module or not pin.module_version:
        raise StackproofError("is no released module", where=checkout.show(pin.folder))
    go = golang.find_go(checkout, pin.go, lambda _: None)
    return golang.module_folder(go, pin.folder, f"{pin.module}@{pin.module_version}")


def given(name: str, value: str, where: str, todo: str) -> Program:
    """Return a program that somebody names by its path; its version is what it says itself.

    Args:
        name: What it is.
        value: The path.
        where: By what it is named: a variable, an option.
        todo: What to do where it is none.

    Raises:
        StackproofError: It is no file that can be run.
    """
    path = Path(value).expanduser().absolute()
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise StackproofError(f"{path} is no file that can be run", where=where, todo=todo)
    return Program(name, _said(path, RECIPES.get(name, Recipe())), path, where)


# --- what is pinned ---


@dataclass(frozen=True)
class _Pin:
    """What tools/NAME says."""

    checkout: Checkout
    name: str
    package: str
    module: str | None
    module_version: str | None
    go: str

    @classmethod
    def read(cls, checkout: Checkout, name: str) -> _Pin:
        folder = checkout.tools / name
        try:
            text = (folder / "go.mod").read_text(encoding="utf-8")
        except OSError as error:
            known = ", ".join(names(checkout))
            raise StackproofError(
                f"there is no program {name!r} (there are: {known})",
                where=checkout.show(folder),
                todo=None if checkout.charts.is_dir() else "Run this in a clone of the repository.",
            ) from error
        # A module that a `replace` moves keeps the version that is asked for: "old v1 => new v2".
        plain = "\n".join(line for line in text.splitlines() if "=>" not in line)
        modules = dict(re.findall(r"^(?:require)?\s+(\S+)\s+(v\S+)", plain, re.MULTILINE))
        tool = re.search(r"^tool\s+(\S+)", text, re.MULTILINE)
        package = "." if (folder / "main.go").exists() or not tool else tool[1]
        go = re.search(r"^go\s+(\S+)", text, re.MULTILINE)
        module = _module(name, package, modules)
        return cls(
            checkout=checkout,
            name=name,
            package=package,
            module=module,
            module_version=modules[module] if module else None,
            go=go[1] if go else golang.OLDEST,
        )

    @property
    def folder(self) -> Path:
        return self.checkout.tools / self.name

    @property
    def recipe(self) -> Recipe:
        return RECIPES.get(self.name, Recipe())

    @property
    def version(self) -> str:
        return self.released or f"source {self.key[:12]}"

    @cached_property
    def released(self) -> str:
        """The version of the module; of a commit the one that versions.yaml knows it by."""
        version = (self.module_version or "").removeprefix("v").removesuffix("+incompatible")
        commit = _commit(version)
        if not commit:
            return version
        known = Versions.load(self.checkout).differences.get(self.name)
        return known.runs if known and known.runs.endswith(f"+{commit}") else commit

    @property
    def ldflags(self) -> str:
        settings = (
            f"-X {variable}={value.format(version=self.released)}"
            for variable, value in self.recipe.variables.items()
        )
        return " ".join(["-s", "-w", *settings])

    @property
    def key(self) -> str:
        """A digest of whatever the binary is made from."""
        digest = hashlib.sha256()
        platforms = f"{platform.system()} {platform.machine()}"
        for part in (platforms, self.package, self.ldflags):
            digest.update(part.encode() + b"\0")
        sources = [path for path in self.folder.rglob("*.go") if not path.match("*_test.go")]
        for path in [self.folder / "go.mod", self.folder / "go.sum", *sorted(sources)]:
            content = path.read_bytes() if path.exists() else b""
            digest.update(f"{path.relative_to(self.folder)}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()[:32]

    @property
    def entry(self) -> Entry:
        return Entry(cache_root() / "programs" / self.name, self.key, self.name)


def _commit(version: str) -> str:
    """Return the commit that a Go pseudo-version names, "" of a release."""
    found = re.search(r"\d{14}-([0-9a-f]{12})$", version)
    return found[1] if found else ""


def _module(name: str, package: str, modules: Mapping[str, str]) -> str | None:
    """Return the module that a program comes from; None where it is our own."""
    for module in sorted(modules, key=len, reverse=True):
        own_name = re.sub(r"/v\d+$", "", module).rsplit("/", 1)[-1]
        if f"{package}/".startswith(f"{module}/") or (package == "." and own_name == name):
            return module
    return None


# --- on PATH ---


def _on_path(pin: _Pin) -> Path | None:
    """Return the program of that name on PATH if it says that it is the pinned version."""
    found = shutil.which(pin.name)
    if not found or not pin.module_version or pin.recipe.ask is None:
        return None
    path = Path(found).resolve()
    return path if _says(pin.module_version, _told(path, pin.recipe.ask)) else None


def _told(path: Path, ask: Sequence[str]) -> str:
    """Return what a program prints as its version; it is asked once for as long as it stays."""
    stat = path.stat()
    key = f"{path} {stat.st_mtime_ns} {stat.st_size}"
    file = cache_root() / "on-path.json"
    known: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(file.read_bytes())
    if key not in known:
        try:
            done = subprocess.run(
                [path, *ask], capture_output=True, text=True, timeout=10, check=False
            )
            known[key] = (done.stdout + done.stderr)[:1000]
        except (OSError, ValueError, subprocess.SubprocessError):
            return ""
        # Only a cache: two that write at once lose no more than an answer.
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            beside = file.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps(known, indent=1), encoding="utf-8")
            beside.replace(file)
    return known[key]


def _said(path: Path, recipe: Recipe) -> str:
    """Return the version that a program says it is."""
    told = _told(path, recipe.ask) if recipe.ask else ""
    found = re.search(r"(?<![\w.])v?(\d+(?:\.\d+)+(?:[-+][\w.+-]*\w)?)", told)
    return found[1] if found else "unknown"


def _says(version: str, told: str) -> bool:
    """Tell whether what a program printed names exactly this version.

    A pseudo-version (`v1.3.1-0.20260423142704-aced80d74930`) is known by its commit.
    """
    if commit := _commit(version):
        revisions = re.findall(r"\b[0-9a-f]{7,40}\b", told)
        return any(commit.startswith(found[:12]) for found in revisions)
    number = re.escape(version.removeprefix("v"))
    return re.search(rf"(?<![\w.-])v?{number}(?![\w.-])", told) is not None


# --- building ---


def _build(pin: _Pin, console: Console) -> None:
    """Build a program into the cache, and show how far it is."""
    what = f"{pin.name} {pin.version}"
    with _progress(console, what, pin.recipe.minutes) as progress:
        go = golang.find_go(pin.checkout, pin.go, progress.say)

        def into(folder: Path, lock: int) -> None:
            progress.begin()
            log = pin.entry.folder / "build.log"
            golang.build(
                go,
                pin.folder,
                pin.package,
                folder / pin.name,
                ldflags=pin.ldflags,
                log=log,
                lock=lock,
                tick=progress.tick,
            )
            progress.end()

        pin.entry.make(into, progress.say)


class _Plain:
    """The progress of a build where nobody watches: a line at its start and one at its end."""

    def __init__(self, console: Console, what: str, minutes: float) -> None:
        self._console = console
        self._what = what
        self._minutes = minutes
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        self._print(f"{self._what}: {text}")

    def begin(self) -> None:
        self._started = time.monotonic()
        self._print(f"building {self._what} (once, about {_about(self._minutes)}) …")

    def tick(self) -> None:
        pass

    def end(self) -> None:
        self._print(f"built {self._what} in {time.monotonic() - self._started:.0f} s")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Live(_Plain):
    """The progress of a build on a terminal: a bar against the time that is expected."""

    def __init__(self, console: Console, what: str, minutes: float, progress: Progress) -> None:
        super().__init__(console, what, minutes)
        self._progress = progress
        self._task = progress.add_task(f"{what}: looking for Go", total=None)

    def say(self, text: str) -> None:
        self._progress.update(self._task, description=f"{self._what}: {text}")

    def begin(self) -> None:
        self._started = time.monotonic()
        self._progress.reset(self._task, total=self._minutes * 60)
        self._progress.update(
            self._task,
            description=f"building {self._what} (once, about {_about(self._minutes)})",
        )

    def tick(self) -> None:
        # A slow machine takes longer than we measured: the bar then waits just below its end.
        done = min(time.monotonic() - self._started, self._minutes * 60 * 0.99)
        self._progress.update(self._task, completed=done)


def _about(minutes: float) -> str:
    return "a minute" if minutes <= 1 else f"{minutes:g} minutes"


@contextlib.contextmanager
def _progress(console: Console, what: str, minutes: float) -> Iterator[_Plain]:
    if not console.is_terminal:
        yield _Plain(console, what, minutes)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Live(console, what, minutes, progress)
