"""Which version a program is: it is asked, and what it prints is compared."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .cache import cache_root

_TIMEOUT_S = 30


def ask(path: Path, arguments: Sequence[str]) -> str:
    """Return what a program prints when it is asked for its version.

    Raises:
        OSError: It cannot be run.
        subprocess.SubprocessError: It does not end.
    """
    # Alloy makes a temporary folder before it reads its arguments, and leaves it.
    with tempfile.TemporaryDirectory(prefix="stackproof-ask-") as folder:
        done = subprocess.run(
            [path, *arguments],
            env={**os.environ, "TMPDIR": folder},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    return (done.stdout + done.stderr)[:1000]


def told(path: Path, arguments: Sequence[str]) -> str:
    """Return the same, "" where it cannot be asked; it is asked once for as long as it stays."""
    stat = path.stat()
    key = f"{path} {stat.st_mtime_ns} {stat.st_size}"
    file = cache_root() / "on-path.json"
    known: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(file.read_bytes())
    if key not in known:
        try:
            known[key] = ask(path, arguments)
        except (OSError, ValueError, subprocess.SubprocessError):
            return ""
        # Only a cache: two that write at once lose no more than an answer.
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            beside = file.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps(known, indent=1), encoding="utf-8")
            beside.replace(file)
    return known[key]


def version_in(said: str) -> str:
    """Return the version in what a program printed."""
    found = re.search(r"(?<![\w.])v?(\d+(?:\.\d+)+(?:[-+][\w.+-]*\w)?)", said)
    return found[1] if found else "unknown"


def names(said: str, version: str) -> bool:
    """Tell whether what a program printed names exactly this version.

    A pseudo-version (`v1.3.1-0.20260423142704-aced80d74930`) is known by its commit.
    """
    if commit := commit_of(version):
        revisions = re.findall(r"\b[0-9a-f]{7,40}\b", said)
        return any(commit.startswith(found[:12]) for found in revisions)
    number = re.escape(version.removeprefix("v"))
    return re.search(rf"(?<![\w.-])v?{number}(?![\w.-])", said) is not None


def commit_of(version: str) -> str:
    """Return the commit that a Go pseudo-version names, "" of a release."""
    found = re.search(r"\d{14}-([0-9a-f]{12})$", version)
    return found[1] if found else ""
