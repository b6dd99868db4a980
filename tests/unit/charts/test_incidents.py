"""Every check, twin and test that docs/incidents.md promises is there."""

from __future__ import annotations

import re

from stackproof.repo.checkout import Checkout
from stackproof.twins import CHECKS, TWINS

KNOWN = {*CHECKS, *(twin.name for twin in TWINS)}
NO_NAMES = {"rollingUpdate", "platform"}


def promised(text: str) -> list[str]:
    """Return what stands in the last column of each row, in backquotes."""
    rows = re.findall(r"^\| (?!incident|---)(?:.+?) \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) == text.count("\n| ") - 1  # all but the head
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_what_is_promised_is_there(checkout: Checkout) -> None:
    text = (checkout.root / "docs" / "incidents.md").read_text(encoding="utf-8")
    missing = [
        name
        for name in promised(text)
        if name not in KNOWN | NO_NAMES and not (checkout.root / name).is_file()
    ]
    assert missing == []
    assert promised(text.replace("one-writer-for", "two-writers-for"))[0] not in KNOWN
