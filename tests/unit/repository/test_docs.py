"""What the documents refer to is there."""

from __future__ import annotations

import re
import tokenize
from pathlib import Path

import pytest

from stackproof.repo.checkout import Checkout

ROOT = Checkout.find().root
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part == "build" for part in path.relative_to(ROOT).parts)
)
#: A link to another file: not to a page elsewhere, and without the place in it.
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_each_decision_has_a_number_of_its_own() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [int(record.name[:4]) for record in records]
    assert numbers == list(range(1, len(records) + 1))
    for number, record in zip(numbers, records, strict=True):
        assert record.read_text(encoding="utf-8").startswith(f"# {number}. ")


def test_decisions_are_cited_by_their_number() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for said, file in re.findall(r"\[ADR (\d+)\]\([^)]*?(\d{4})-[^)]*\)", text):
            assert int(said) == int(file), f"{page.relative_to(ROOT)}: ADR {said} is {file}"


def _said(file: Path) -> str:
    """Return a file's comments and long strings."""
    with file.open("rb") as source:
        tokens = list(tokenize.tokenize(source.readline))
    return "\n".join(each.string for each in tokens if each.string.startswith(("#", '"""')))


def test_files_that_comments_name_are_there() -> None:
    """A comment that sends its reader to a file which has gone is worse than none."""
    named = re.compile(r"\b(?:src/stackproof|tests)/[\w/-]+\.py\b")
    for folder in ("src", "tests", "tools"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            gone = [path for path in named.findall(_said(file)) if not (ROOT / path).exists()]
            assert gone == [], f"{file.relative_to(ROOT)} names {gone}"
