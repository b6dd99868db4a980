"""Copies of the repository, for tests that change files; and its history."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from stackproof.repo.checkout import Checkout

#: What the checks of the Flux tree look at.
TREE = ("charts", "flux", "observability", "schemas", ".github")
#: What a deployment is made of.
DEPLOYED = ("charts", "observability", "flux", "tools")


def copied(checkout: Checkout, root: Path, folders: tuple[str, ...] = TREE) -> Checkout:
    """Copy some folders of a checkout, and its pins."""
    for name in folders:
        shutil.copytree(checkout.root / name, root / name)
    shutil.copy(checkout.versions_file, root)
    return Checkout(root)


def written(root: Path, files: Mapping[str, str]) -> Path:
    """Write files into a folder, by their paths in it; return the folder."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def script(path: Path, text: str) -> Path:
    """Write a program that a shell runs, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def edit(file: Path, old: str, new: str, count: int = -1) -> None:
    """Put a text in the place of another, which must be there; `count` times, or each time."""
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file} has no {old!r}"
    file.write_text(text.replace(old, new, count), encoding="utf-8")


def commit(root: Path, ignored: str = "") -> None:
    """Commit all files of a folder, which is a Git repository then."""
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    if ignored:
        (root / ".git/info/exclude").write_text(ignored)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message=t"], check=True)


def added(file: Path) -> str:
    """Return the commit that added a file of this repository."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(file.parent), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    try:
        git("rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"there is no history: {error}")
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.skip("the history is cut off: fetch all of it")
    return git("log", "--diff-filter=A", "--format=%H", "--", file.name).split()[-1]
