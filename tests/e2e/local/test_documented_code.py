"""The examples of the documentation that start a stack do what the pages say."""

from __future__ import annotations

import pytest
from tests import documented

from stackproof.repo.checkout import Checkout


@pytest.mark.parametrize("name", ["attack.md", "read-api.md"])
def test_the_code_of_the_page_runs(name: str, checkout: Checkout) -> None:
    documented.run(checkout.root / "docs" / "extend" / name, checkout.root)
