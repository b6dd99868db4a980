"""The examples of the documentation that need no running stack do what the pages say."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import documented

from stackproof.repo.checkout import Checkout

PAGES = ("check.md", "twin.md")


@pytest.mark.parametrize("name", PAGES)
def test_the_code_of_the_page_runs(name: str, checkout: Checkout) -> None:
    documented.run(checkout.root / "docs" / "extend" / name, checkout.root)


def test_an_example_that_does_not_hold_is_noticed(checkout: Checkout, tmp_path: Path) -> None:
    """The check without its rule: the page's own `assert` tells that nothing was said."""
    page = (checkout.root / "docs" / "extend" / "check.md").read_text(encoding="utf-8")
    assert 'if not port.get("name")' in page
    broken = tmp_path / "check.md"
    broken.write_text(page.replace('if not port.get("name")', "if False"), encoding="utf-8")
    with pytest.raises(AssertionError, match=r"AssertionError: \[\]"):
        documented.run(broken, checkout.root)
