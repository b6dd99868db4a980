"""Fixtures of the tests of the Flux tree."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.copies import copied

from stackproof.flux.tree import Tree, build
from stackproof.repo.checkout import Checkout


@pytest.fixture(scope="session")
def tree(checkout: Checkout) -> Tree:
    """The tree of the repository."""
    return build(checkout)


@pytest.fixture
def copy(checkout: Checkout, tmp_path: Path) -> Checkout:
    """A copy of what the checks look at, whose files a test may change."""
    return copied(checkout, tmp_path)
