"""Other programs, run to their end."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def ran(command: Sequence[str | Path], **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a command, and return how it ended and what it said; `how` is for subprocess.run."""
    return subprocess.run(command, capture_output=True, text=True, check=False, **how)
