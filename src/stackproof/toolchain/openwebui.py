"""The real open-webui in an environment of its own, made once; never a dependency of this project.

tools/open-webui pins the wheel of the very version that is deployed, and of its requirements those
that starting it takes. Its licence keeps its code out of this repository; running it is use.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout

from .cache import Entry, cache_root
from .pip import EXACTLY, PIP
from .postgresql import When
from .programs import Program

NAME: Final = "open-webui"

#: Pythons that the wheel names itself fit for (0.11.3: >=3.11,<3.13).
_PYTHONS = ("3.12", "3.11")
_OWN = f"{sys.version_info.major}.{sys.version_info.minor}"

#: Most of the wheel is pages for a browser, and fonts for PDFs.
LEFT_OUT = re.compile(r"open_webui/(frontend/(?!static/)|static/fonts/)")

#: The first version that answers /ready; one before it answers every path that it does not know
#: with the page for a browser (main.py, SPAStaticFiles), which is left out here.
READY_SINCE = (0, 8, 11)

#: What is replaced of a pod's environment wherever it runs here: it is a wheel and no image, and
#: instead of Weaviate it has a vector store that is not asked before it is used.
HERE: Final[Mapping[str, str]] = {
    "FROM_INIT_PY": "true",
    "VECTOR_DB": "opensearch",
    "OPENSEARCH_URI": "http://127.0.0.1:9",
    "OPENSEARCH_USERNAME": "nobody",
    "OPENSEARCH_PASSWORD": "nothing",
}


def here(when: When) -> Mapping[str, str]:
    """Return the variables that replace those of a pod, for one of the two releases.

    The earlier one runs without telemetry: that loads chromadb, which nothing else needs here.
    """
    return HERE if when is When.NOW else {**HERE, "ENABLE_OTEL": "false"}


def locate(
    checkout: Checkout | None = None,
    when: When = When.NOW,
    *,
    build: bool = True,
    console: Console | None = None,
) -> Program:
    """Return the Python that `-m uvicorn open_webui.main:app` runs in.

    Args:
        checkout: Whose pins count; that of the working directory if not given.
        when: The version that is deployed, or the one that production has had before.
        build: Make the environment where it is not there; else the `path` is then None.
        console: Is told what takes a while; standard error if not given.

    Raises:
        StackproofError: There is no Python that fits, or a package cannot be had.
    """
    checkout = checkout or Checkout.find()
    folder = _pins(checkout, when)
    made = entry(checkout, when)
    version = pinned(_read(checkout, folder / "application.lock").decode())
    if not made.ready():
        if not build:
            return Program(NAME, version, None, "not built yet")
        _make(made, folder, when, console or Console(stderr=True), f"{NAME} {version}")
    return Program(NAME, version, made.path, "built here")


def find(checkout: Checkout | None = None, when: When = When.NOW) -> Path:
    """Return the path of that Python; the environment is made first if it must be.

    Raises:
        StackproofError: It cannot be made.
    """
    path = locate(checkout, when).path
    assert path is not None
    return path


def entry(checkout: Checkout, when: When = When.NOW) -> Entry:
    """Return where the environment of these pins is, or will be.

    Raises:
        StackproofError: A pin cannot be read, or there is no Python that fits.
    """
    digest = hashlib.sha256(LEFT_OUT.pattern.encode())
    for lock in ("application.lock", "requirements.lock"):
        path = _pins(checkout, when) / lock
        digest.update(hashlib.sha256(_read(checkout, path)).digest())
    key = f"{digest.hexdigest()[:16]}-{_python()[1]}-{platform.machine()}"
    return Entry(cache_root() / "programs" / NAME, key, "bin/python")


def _pins(checkout: Checkout, when: When) -> Path:
    folder = checkout.tools / NAME
    return folder if when is When.NOW else folder / when


def _read(checkout: Checkout, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StackproofError(
            f"cannot be read: {error.strerror}",
            where=checkout.show(path),
            todo="Run: python tools/open-webui/lock.py",
        ) from error


def pinned(lock: str) -> str:
    """Return the version in application.lock: `0.11.3`.

    Raises:
        StackproofError: The text pins no open-webui.
    """
    found = re.search(rf"^{NAME}==(\S+)", lock, re.MULTILINE)
    if not found:
        raise StackproofError(
            f"pins no {NAME}", where="application.lock", todo="Run: python tools/open-webui/lock.py"
        )
    return found[1]


def drivers(checkout: Checkout) -> str:
    """Return a mark of what `install_driver` installs."""
    path = checkout.tools / NAME / "postgres.lock"
    return hashlib.sha256(_read(checkout, path)).hexdigest()[:16]


def install_driver(checkout: Checkout, folder: Path) -> None:
    """Install the driver of PostgreSQL into a folder, for an image of the application.

    Raises:
        StackproofError: It cannot be had.
    """
    lock = checkout.tools / NAME / "postgres.lock"
    python = ["--python-version", _python()[1], "--implementation", "cp"]
    what = ["--target", str(folder), "--requirement", str(lock)]
    _run([*PIP, "install", *EXACTLY, *python, *what])


def unavailable() -> str:
    """Return why the application cannot run on this machine, "" if it can."""
    if _pythons():
        return ""
    return f"{NAME} needs Python {' or '.join(_PYTHONS)} on PATH, this one is {_OWN}"


def _pythons() -> list[tuple[str, str]]:
    """Return the Pythons that the application fits, ours first, each with its version `3.N`."""
    own = [(sys.executable, _OWN)] if _OWN in _PYTHONS else []
    others = ((shutil.which(f"python{number}"), number) for number in _PYTHONS)
    return own + [(path, number) for path, number in others if path]


def _python() -> tuple[str, str]:
    if why := unavailable():
        todo = f"Install Python {_PYTHONS[0]} and put it on PATH."
        raise StackproofError(why, where=sys.executable, todo=todo)
    return _pythons()[0]


def _make(entry: Entry, pins: Path, when: When, console: Console, what: str) -> None:
    def say(text: str) -> None:
        console.print(f"{what}: {text}", markup=False, highlight=False, soft_wrap=True)

    def into(folder: Path, lock: int) -> None:
        began = time.monotonic()
        say("making its environment (once, about two minutes) …")
        python, _ = _python()
        # Without pip in it: ours installs there.
        _run([python, "-m", "venv", "--without-pip", str(folder)], lock)
        own = folder / "bin" / "python"
        pip = [*PIP, "--python", str(own)]
        # peewee, of the earlier version, is published as source alone.
        exact = [*EXACTLY, "--no-binary", "peewee", "--requirement"]
        _run([*pip, "install", "--no-compile", *exact, str(pins / "requirements.lock")], lock)
        (packages,) = folder.glob("lib/python*/site-packages")
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            application = str(pins / "application.lock")
            _run([*pip, "download", "--dest", scratch, *exact, application], lock)
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                names = [name for name in archive.namelist() if not LEFT_OUT.match(name)]
                archive.extractall(packages, names)
            # Shows that nothing is missing, and leaves compiled what a start needs.
            start = [str(own), "-c", "import open_webui.main"]
            _run(start, lock, folder=Path(scratch), replaced=here(when))
        say(f"made in {time.monotonic() - began:.0f} s")

    entry.make(into, say)


def _run(
    command: Sequence[str],
    lock: int | None = None,
    *,
    folder: Path | None = None,
    replaced: Mapping[str, str] = HERE,
) -> None:
    """Run a command; the lock is held for as long as it runs, whatever becomes of us.

    With a `folder` it runs there, with what the application needs and nothing of ours.
    """
    environment: Mapping[str, str] = os.environ
    if folder:
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "DATA_DIR": str(folder),
            "DATABASE_URL": f"sqlite:///{folder}/webui.db",
            "STATIC_DIR": f"{folder}/static",
            "WEBUI_SECRET_KEY": "none",
            "ENABLE_OTEL": "true",
            **replaced,
        }
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        pass_fds=[] if lock is None else [lock],
    )
    if done.returncode:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-12:])
        raise StackproofError(
            f"the environment of {NAME} cannot be made\n{tail}",
            where=" ".join(command[1:3]),
            todo="Check the network and pip's settings, then run this again.",
        )
