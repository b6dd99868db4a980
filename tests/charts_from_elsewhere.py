"""Other people's charts: from their repositories, or where STACKPROOF_CHARTS has them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.ran import ran

from stackproof.checks.scale_out import Install
from stackproof.toolchain import programs

#: How long a repository is given to answer. [s]
_ANSWERS_S = 60


def given(name: str) -> Path | None:
    """Return the unpacked chart in STACKPROOF_CHARTS; None where that is not set.

    The test is skipped where it is set and has no such chart.
    """
    if not (folder := os.environ.get("STACKPROOF_CHARTS")):
        return None
    chart = Path(folder) / name
    if not (chart / "Chart.yaml").is_file():
        pytest.skip(f"$STACKPROOF_CHARTS has no {name}")
    return chart


def helm(*words: str, name: str, version: str) -> str:
    """Ask a chart's repository and return what helm prints.

    The test is skipped where it cannot be asked, and fails where it has no such version.
    """
    about = f"{name} {version}"
    try:
        done = ran([programs.find("helm"), *words, "--version", version], timeout=_ANSWERS_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{about} cannot be had: no answer within {_ANSWERS_S} s")
    if f'"{version}" not found in' in done.stderr:
        pytest.fail(f"there is no {about}: {done.stderr.strip()}")
    if done.returncode:
        pytest.skip(f"{about} cannot be had here: {done.stderr.strip().splitlines()[-1][:160]}")
    return done.stdout


def unpacked(install: Install, target: Path) -> Path:
    """Return the chart of a release, unpacked in `target` unless it is given."""
    if chart := given(install.chart):
        return chart
    pull = ("pull", *install.source, "--untar", "-d", str(target))
    helm(*pull, name=install.chart, version=install.version)
    return target / install.chart
