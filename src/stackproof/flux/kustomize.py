"""Build a folder with kustomize, as Flux' kustomize-controller does.

A folder without a kustomization.yaml is built too: Flux makes one that names every manifest in it,
and every folder below that has a kustomization.yaml of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stackproof import programs
from stackproof.checkout import Checkout
from stackproof.errors import StackproofError
from stackproof.manifests import Manifest, freeze, thaw

KUSTOMIZATION_FILES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_MANIFESTS = (".yaml", ".yml")
_REMOTE = re.compile(r"\w+://|git@|[\w.-]+\.\w+/.*//|github\.com/")


def kustomization_file(folder: Path) -> Path | None:
    """Return the folder's own kustomization, None where it has none."""
    return next((folder / name for name in KUSTOMIZATION_FILES if (folder / name).is_file()), None)


def build(
    checkout: Checkout, folder: Path, patches: Sequence[Mapping[str, Any]] = ()
) -> tuple[Manifest, ...]:
    """Return the objects of a folder, in kustomize's order.

    Args:
        checkout: Names the folder in messages.
        folder: What to build.
        patches: A Flux Kustomization's own `patches`, laid over.

    Raises:
        StackproofError: There is no such folder, or kustomize refuses it; with its own words.
    """
    where = checkout.show(folder)
    if not folder.is_dir():
        raise StackproofError("there is no such folder", where=where)
    _refuse_remote(checkout, folder)
    key = _digest(checkout, folder, patches)
    if key not in _built:
        _built[key] = _build(folder, where, patches)
    return _built[key]


_built: dict[str, tuple[Manifest, ...]] = {}
"""What was built, by content: a twin shares most folders with the right tree."""


def _digest(checkout: Checkout, folder: Path, patches: Sequence[Mapping[str, Any]]) -> str:
    found = hashlib.sha256(f"{checkout.show(folder)}\0{json.dumps(thaw(list(patches)))}".encode())
    for path in sorted(files_used(folder)):
        found.update(f"\0{os.path.relpath(path, folder)}\0".encode() + path.read_bytes())
    return found.hexdigest()


def _refuse_remote(checkout: Checkout, folder: Path) -> None:
    """Raise where a kustomization fetches something from elsewhere at every build."""
    for path in sorted(files_used(folder)):
        for name in _named(path) if path.name in KUSTOMIZATION_FILES else ():
            if _REMOTE.match(name):
                raise StackproofError(
                    f"{name} is fetched at every build",
                    where=checkout.show(path),
                    todo="Make it a source of its own, pinned to one version.",
                )


def _build(folder: Path, where: str, patches: Sequence[Mapping[str, Any]]) -> tuple[Manifest, ...]:
    has_own = kustomization_file(folder)
    if has_own and not patches:
        return _run(folder, where)
    with tempfile.TemporaryDirectory(prefix="stackproof-") as made:
        # A file must lie below its kustomization; a folder with one of its own may lie anywhere.
        own = Path(made).resolve()
        resources = []
        parts = [folder] if has_own else _generated_resources(folder)
        for number, path in enumerate(parts):
            if path.is_dir():
                resources.append(os.path.relpath(path.resolve(), own))
            else:
                resources.append(f"{number}-{path.name}")
                shutil.copyfile(path, own / resources[-1])
        content = {"resources": resources, "patches": list(patches)}
        (own / "kustomization.yaml").write_text(yaml.safe_dump(thaw(content)), encoding="utf-8")
        return _run(own, where)


def _generated_resources(folder: Path) -> Iterator[Path]:
    """Yield what Flux puts into the kustomization that it makes for a folder."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if kustomization_file(path):
                yield path
            else:
                yield from _generated_resources(path)
        elif path.suffix in _MANIFESTS:
            yield path


def _run(folder: Path, where: str) -> tuple[Manifest, ...]:
    done = subprocess.run(
        [programs.find("kustomize"), "build", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().removeprefix("Error: ").replace(str(folder), where)
        raise StackproofError(f"kustomize cannot build it: {said}", where=where)
    documents = yaml.load_all(done.stdout, Loader=yaml.CSafeLoader)
    return tuple(manifest(data, where, n) for n, data in enumerate(documents) if data)


def manifest(data: Mapping[str, Any], source: str, index: int = 0) -> Manifest:
    """Return an object as a manifest from `source`."""
    text = json.dumps(data, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Manifest(freeze(data), source=source, index=index, digest=digest)


def files_used(folder: Path) -> frozenset[Path]:
    """Return every file that building a folder reads, its kustomizations included.

    Args:
        folder: An existing folder; files that a kustomization names and nobody has are left out.
    """
    own = kustomization_file(folder)
    if own is None:
        return frozenset().union(
            *(files_used(p) if p.is_dir() else {p} for p in _generated_resources(folder))
        )
    found = {own.resolve()}
    for name in _named(own):
        path = (folder / name).resolve()
        if path.is_dir():
            found |= files_used(path)
        elif path.is_file():
            found.add(path)
    return frozenset(found)


def _named(file: Path) -> Iterator[str]:
    """Yield the paths that a kustomization names; none where it is no YAML."""
    try:
        kustomization = yaml.load(file.read_bytes(), Loader=yaml.CSafeLoader)
    except yaml.YAMLError:
        return
    if not isinstance(kustomization, dict):
        return
    for key in ("resources", "components", "configurations", "crds", "transformers", "generators"):
        yield from kustomization.get(key) or ()
    for key in ("patches", "replacements"):
        yield from (one["path"] for one in kustomization.get(key) or () if one.get("path"))
    for key in ("configMapGenerator", "secretGenerator"):
        for made in kustomization.get(key) or ():
            # KEY=PATH, or just PATH
            yield from (file.partition("=")[2] or file for file in made.get("files") or ())
            yield from made.get("envs") or ()
