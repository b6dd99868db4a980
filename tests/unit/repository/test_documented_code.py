"""The examples of the documentation that need no running stack do what the pages say."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest
from tests import documented

from stackproof.repo.checkout import Checkout

EXTEND = Checkout.find().root / "docs" / "extend"
PAGES = ("check.md", "twin.md")


@pytest.mark.parametrize("name", PAGES)
def test_the_code_of_the_page_runs(name: str, checkout: Checkout) -> None:
    documented.run(checkout.root / "docs" / "extend" / name, checkout.root)


@pytest.mark.parametrize("name", sorted(path.name for path in EXTEND.glob("*.md")))
def test_what_a_page_imports_is_there(name: str) -> None:
    """Of all pages, so that a renamed class is noticed before the pages that need a stack run."""
    for node in ast.walk(ast.parse(documented.code(EXTEND / name))):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert not missing, f"{name}: {node.module} has no {', '.join(missing)}"


def test_an_example_that_does_not_hold_is_noticed(checkout: Checkout, tmp_path: Path) -> None:
    """The check without its rule: the page's own `assert` tells that nothing was said."""
    page = (checkout.root / "docs" / "extend" / "check.md").read_text(encoding="utf-8")
    assert 'if not port.get("name")' in page
    broken = tmp_path / "check.md"
    broken.write_text(page.replace('if not port.get("name")', "if False"), encoding="utf-8")
    with pytest.raises(AssertionError, match=r"AssertionError: \[\]"):
        documented.run(broken, checkout.root)
