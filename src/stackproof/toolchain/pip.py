"""How pip is called: quietly, and for exactly what a lock file pins."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PIP: Final = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
EXACTLY: Final = ("--require-hashes", "--no-deps", "--only-binary", ":all:")


def failure(command: str, lock: Path, options: Sequence[str]) -> str:
    """Install or download what a lock file pins; return what pip prints of a failure, else ""."""
    words = [*PIP, command, *EXACTLY, *options, "--requirement", str(lock)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stderr.strip() or "it says nothing" if done.returncode else ""
