"""The official distributed charts: from their repositories, or where STACKPROOF_CHARTS has them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from stackproof.checks.scale_out import Install
from stackproof.toolchain import programs


def chart(install: Install, target: Path) -> Path:
    """Return the chart of a release, unpacked; skip the test where it is not to be had.

    Args:
        install: Which.
        target: Where a chart that is pulled is unpacked.
    """
    if given := os.environ.get("STACKPROOF_CHARTS"):
        folder = Path(given) / install.chart
        if not folder.is_dir():
            pytest.skip(f"$STACKPROOF_CHARTS has no {install.chart}")
        return folder
    about = f"{install.chart} {install.version}"
    where = [*install.source, "--version", install.version, "--untar", "-d", str(target)]
    try:
        done = subprocess.run(
            [programs.find("helm"), "pull", *where],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{about} cannot be had: no answer within 60 s")
    if done.returncode:
        pytest.skip(f"{about} cannot be had here: {done.stderr.strip().splitlines()[-1][:160]}")
    return target / install.chart
