"""What the targets do, as `make --dry-run` tells it: nothing is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.ran import ran

from stackproof.repo.checkout import Checkout


@pytest.fixture
def clone(checkout: Checkout, tmp_path: Path) -> Path:
    """A clone with everything set up, in which pyproject.toml was changed since."""
    for name in ("Makefile", ".github/ci.mk"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(checkout.root / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    names = ("requirements.lock", ".venv/.locked", ".venv/.ready", "pyproject.toml")
    for age, name in enumerate(reversed(names)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    return tmp_path


def would_run(clone: Path, target: str) -> str:
    done = ran(["make", "--dry-run", target], cwd=clone)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("version", "good"), [("3, 10", 0), ("3, 11", 1), ("3, 14", 1), ("3, 15", 0)]
)
def test_other_pythons_are_refused_before_anything_is_installed(
    version: str, good: int, clone: Path
) -> None:
    """What the Makefile asks of Python is asked of this one, with another version put in."""
    code = re.findall(r"-c '(import sys, venv.*?)'", (clone / "Makefile").read_text())
    assert len(code) == 1
    asked = f"import sys; sys.version_info = ({version}, 0); {code[0]}"
    done = subprocess.run([sys.executable, "-c", asked], check=False)
    assert (done.returncode == 0) is bool(good)


def test_locking_needs_no_lock_that_is_up_to_date(clone: Path) -> None:
    """A package that pyproject.toml newly asks for is missing until `make lock` has locked it."""
    assert "pip check" in would_run(clone, "setup")
    told = would_run(clone, "lock")
    assert "pip-compile" in told
    assert "pip check" not in told


def test_a_new_lock_is_installed_and_checked(clone: Path) -> None:
    os.utime(clone / "requirements.lock", (1e9 + 1, 1e9 + 1))
    told = would_run(clone, "setup")
    assert told.index("-r requirements.lock") < told.index("--editable .") < told.index("pip check")


def test_every_target_is_phony(clone: Path) -> None:
    """Else one that is called as a folder is, such as `docs`, is up to date and does nothing."""
    text = "".join((clone / name).read_text() for name in ("Makefile", ".github/ci.mk"))
    phony = set(" ".join(re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)).split())
    assert set(re.findall(r"^([a-z][a-z0-9-]*):", text, re.MULTILINE)) == phony


def test_what_targets_do_is_in_one_column(clone: Path) -> None:
    done = subprocess.run(["make", "help"], cwd=clone, capture_output=True, text=True, check=True)
    listed = [line for line in done.stdout.splitlines() if "\033[1m" in line]
    assert len(listed) > 20
    assert len({len(line.partition("\033[0m")[0]) for line in listed}) == 1
