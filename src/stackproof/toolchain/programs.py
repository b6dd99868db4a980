"""The programs that run on this machine: found if somebody has them, else taken out of the image
that is deployed, else built once.

A program is looked for in this order: the environment variable STACKPROOF_NAME; the cache; `PATH`
(at exactly the version that is deployed or pinned); the deployed image. Where it is nowhere,
it is built from what tools/NAME pins (go.mod, go.sum), into the cache, under a key made of whatever
the binary is made from.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from rich.console import Console

from stackproof.errors import StackproofError, UsageError
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions

from . import deployed as images
from . import golang, identity, progress
from .cache import Entry, cache_root
from .deployed import DeployedProgram, NotHadError
from .progress import Progress


@dataclass(frozen=True, slots=True)
class Recipe:
    """What building and recognising a program takes, beside its pin.

    Args:
        minutes: How long a build takes with nothing cached, measured on two cores.
        variables: Variables that the linker sets, so that the program knows its version:
            `{version}` is the pinned one without `v`.
        ask: Arguments that make the program print its version; None where it cannot.
        cluster: Whether nothing needs it but a cluster.
        inside: Its path in the image that is deployed; "" where it is not taken from there.
        tags: Build tags, which leave out what nothing here needs.
    """

    minutes: float = 1
    variables: Mapping[str, str] = field(default_factory=dict)
    ask: Sequence[str] | None = None
    cluster: bool = False
    inside: str = ""
    tags: str = ""


RECIPES: Final[Mapping[str, Recipe]] = {
    "actionlint": Recipe(1, {}, ["-version"]),
    "alloy": Recipe(
        10,
        {"github.com/grafana/alloy/internal/build.Version": "v{version}"},
        ["--version"],
        inside="/bin/alloy",
    ),
    "caddy": Recipe(
        1,
        {"github.com/caddyserver/caddy/v2.CustomVersion": "v{version}"},
        ["version"],
        inside="/usr/bin/caddy",
    ),
    "external-secrets": Recipe(3, cluster=True),
    "fake-gcs-server": Recipe(1, cluster=True),
    "fetch": Recipe(1),
    "flux": Recipe(1),
    "helm": Recipe(
        1, {"helm.sh/helm/v4/internal/version.version": "v{version}"}, ["version", "--short"]
    ),
    "helm-controller": Recipe(2, cluster=True),
    "kind": Recipe(1, {}, ["version"], cluster=True),
    "kustomize-controller": Recipe(2, cluster=True),
    "loki": Recipe(
        4,
        {"github.com/grafana/loki/v3/pkg/util/build.Version": "{version}"},
        ["-version"],
        inside="/usr/bin/loki",
    ),
    "mimir": Recipe(
        2,
        {"github.com/grafana/mimir/pkg/util/version.Version": "{version}"},
        ["-version"],
        inside="/bin/mimir",
    ),
    # Without the clients of two dozen clouds.
    "promtool": Recipe(2, tags="remove_all_sd"),
    "render": Recipe(1),
    "source-controller": Recipe(2, cluster=True),
    "standin": Recipe(1, cluster=True),
    "telemetrygen": Recipe(1),
    "tempo": Recipe(2, {"main.Version": "{version}"}, ["-version"], inside="/tempo"),
    "weaviate": Recipe(3, cluster=True),
    "weaviate-before": Recipe(3, cluster=True),
}


@dataclass(frozen=True, slots=True)
class Program:
    """A program that can be run.

    Args:
        name: Its name: that of its folder in tools/.
        version: What runs, without `v`: as the program itself says where the environment names
            it, the deployed one where its image had it, else the pinned one; of our own a digest of
            its source.
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
    """Return the path of a program, which is fetched or built first if it must be.

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
        build: Fetch or build it where it is nowhere; else its `path` is then None.
        console: Shows the progress; standard error if not given.

    Raises:
        StackproofError: There is no such program, or it cannot be built.
    """
    pin = _Pin.read(checkout or Checkout.own(), name)
    if found := _found(pin):
        return found
    if not build:
        return Program(name, pin.version, None, "not built yet")
    with progress.shown(console or Console(stderr=True), f"{name} {pin.version}") as shown:
        if not _taken(pin, shown):
            _build(pin, shown)
    found = _found(pin)
    assert found
    return found


def _found(pin: _Pin) -> Program | None:
    """Return a program where it is on this machine already."""
    if override := os.environ.get(pin.variable):
        todo = f"Correct {pin.variable}, or unset it: then the pinned program is used."
        return given(pin.name, override, pin.variable, todo)
    if (deployed := pin.deployed) and deployed.entry.ready():
        how = f"image {deployed.image}"
        return Program(pin.name, deployed.version, deployed.entry.path, how)
    if pin.entry.ready():
        return Program(pin.name, pin.version, pin.entry.path, "built here")
    return _on_path(pin)


def source(name: str, checkout: Checkout | None = None) -> Path:
    """Return the folder of a program's own source, as its module was released.

    Where STACKPROOF_NAME names a binary at the top of a source tree, that is the source.

    Raises:
        StackproofError: It is a program of ours, or its module cannot be had.
    """
    checkout = checkout or Checkout.own()
    pin = _Pin.read(checkout, name)
    beside = Path(os.environ.get(pin.variable, "")).expanduser().absolute().parent
    if pin.variable in os.environ and (beside / "go.mod").is_file():
        return beside
    if not pin.module or not pin.module_version:
        raise StackproofError("is not a released module", where=checkout.show(pin.folder))
    go = golang.find_go(checkout, pin.go, lambda _: None)
    return golang.module_folder(go, pin.folder, f"{pin.module}@{pin.module_version}")


def given(name: str, value: str, where: str, todo: str) -> Program:
    """Return a program that somebody names by its path; its version is what it says itself.

    Raises:
        UsageError: It is not an executable file.
    """
    path = Path(value).expanduser().absolute()
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise UsageError(f"{path} is not an executable file", where=where, todo=todo)
    ask = RECIPES.get(name, Recipe()).ask
    return Program(name, identity.version_in(identity.told(path, ask) if ask else ""), path, where)


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
    def variable(self) -> str:
        """The environment variable that names another binary."""
        return f"STACKPROOF_{self.name.upper().replace('-', '_')}"

    @property
    def version(self) -> str:
        return self.released or f"source {self.key[:12]}"

    @cached_property
    def released(self) -> str:
        """The version of the module; of a commit the one that versions.yaml knows it by."""
        version = (self.module_version or "").removeprefix("v").removesuffix("+incompatible")
        commit = identity.commit_of(version)
        if not commit:
            return version
        known = Versions.load(self.checkout).differences.get(self.name)
        return known.runs if known and known.runs.endswith(f"+{commit}") else commit

    @property
    def deployed(self) -> DeployedProgram | None:
        """The program in the image that is deployed; None where none is asked for."""
        if not self.recipe.inside or self.recipe.ask is None or not images.wanted():
            return None
        image = Versions.load(self.checkout).image_of(self.name)
        if image is None:
            return None
        return DeployedProgram(self.name, image, self.recipe.inside, self.recipe.ask)

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
        made = (platforms, self.package, self.ldflags, self.recipe.tags)
        for part in filter(None, made):  # what has no tags keeps the key that it had
            digest.update(part.encode() + b"\0")
        sources = [path for path in self.folder.rglob("*.go") if not path.match("*_test.go")]
        for path in [self.folder / "go.mod", self.folder / "go.sum", *sorted(sources)]:
            content = path.read_bytes() if path.exists() else b""
            digest.update(f"{path.relative_to(self.folder)}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()[:32]

    @property
    def entry(self) -> Entry:
        return Entry(cache_root() / "programs" / self.name, self.key, self.name)


def _module(name: str, package: str, modules: Mapping[str, str]) -> str | None:
    """Return the module that a program comes from; None where it is our own."""
    for module in sorted(modules, key=len, reverse=True):
        own_name = re.sub(r"/v\d+$", "", module).rsplit("/", 1)[-1]
        if f"{package}/".startswith(f"{module}/") or (package == "." and own_name == name):
            return module
    return None


# --- on PATH ---


def _on_path(pin: _Pin) -> Program | None:
    """Return the program of that name on PATH if it says that it is the deployed or pinned one."""
    found = shutil.which(pin.name)
    if not found or not pin.module_version or pin.recipe.ask is None:
        return None
    path = Path(found).resolve()
    told = identity.told(path, pin.recipe.ask)
    if (deployed := pin.deployed) and identity.names(told, deployed.version):
        return Program(pin.name, deployed.version, path, "on PATH")
    if identity.names(told, pin.module_version):
        return Program(pin.name, pin.version, path, "on PATH")
    return None


# --- out of its image ---

#: Why programs are built, where it is a reason for many of them: it is said once.
_said: set[str] = set()


def _taken(pin: _Pin, shown: Progress) -> bool:
    """Take a program out of its image; where that cannot be, say why and how long a build takes."""
    deployed = pin.deployed
    if not deployed:
        return False

    def fetch() -> Path:
        helper = _Pin.read(pin.checkout, "fetch")
        found = _found(helper)
        if found and found.path:
            return found.path
        _build(helper, shown)
        return helper.entry.path

    try:
        deployed.take(fetch, shown)
    except NotHadError as error:
        if not error.of_registry:
            shown.tell(f"{pin.name} is built, not taken out of {deployed.image}: {error}")
        elif str(error) not in _said:
            _said.add(str(error))
            shown.tell(
                f"{error}: programs are built from source instead (about "
                f"{progress.minutes(_minutes_to_build(pin.checkout))} in all, once per machine)"
            )
        return False
    return True


def _minutes_to_build(checkout: Checkout) -> float:
    """Return how long the builds take that a local stack still needs."""
    pins = (_Pin.read(checkout, name) for name in names(checkout, cluster=False))
    return sum(pin.recipe.minutes for pin in pins if not _found(pin))


# --- building ---


def _build(pin: _Pin, shown: Progress) -> None:
    """Build a program into the cache, and show how far it is."""
    what = f"{pin.name} {pin.version}"
    go = golang.find_go(pin.checkout, pin.go, shown.say)

    def into(folder: Path, lock: int) -> None:
        shown.begin(
            f"building {what} (once, about {progress.minutes(pin.recipe.minutes)})",
            pin.recipe.minutes,
        )
        golang.build(
            go,
            pin.folder,
            pin.package,
            folder / pin.name,
            ldflags=pin.ldflags,
            tags=pin.recipe.tags,
            log=pin.entry.folder / "build.log",
            lock=lock,
            tick=shown.tick,
        )
        shown.end(f"built {what}")

    pin.entry.make(into, shown.say)
