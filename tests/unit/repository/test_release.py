"""A release says what it is: the tag, the version and the changelog agree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.ran import ran

from stackproof import __version__
from stackproof.repo.checkout import Checkout


def checked(checkout: Checkout, tag: str, notes: Path) -> subprocess.CompletedProcess[str]:
    return ran(
        ["make", "--silent", "release-check", f"TAG={tag}", f"NOTES={notes}"], cwd=checkout.root
    )


@pytest.mark.parametrize("tag", ["", __version__, "v99.0.0", f"v{__version__}-rc1"])
def test_a_tag_that_is_not_the_version_is_refused(
    tag: str, checkout: Checkout, tmp_path: Path
) -> None:
    done = checked(checkout, tag, tmp_path / "notes.md")
    assert done.returncode != 0
    assert f"the tag is '{tag}', the version {__version__}" in done.stderr


def test_the_changelog_has_every_version_and_its_link(checkout: Checkout) -> None:
    text = (checkout.root / "CHANGELOG.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## \[([^\]]+)\](?: - \d{4}-\d\d-\d\d)?$", text, re.MULTILINE)
    assert titles[0] == "Unreleased"
    assert __version__ in titles
    assert [title for title in titles if f"\n[{title}]: https://" not in text] == []


def test_the_notes_are_those_of_the_version(checkout: Checkout, tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    done = checked(checkout, f"v{__version__}", notes)
    assert done.returncode == 0, done.stderr
    text = notes.read_text(encoding="utf-8")
    whole = (checkout.root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert (
        text.strip() == whole.partition(f"[{__version__}] - ")[2][11:].partition("\n[")[0].strip()
    )
