"""Fixtures that unit and end-to-end tests share."""

from __future__ import annotations

import pytest

from stackproof.repo.checkout import Checkout


@pytest.fixture(scope="session")
def checkout(pytestconfig: pytest.Config) -> Checkout:
    """The repository under test."""
    return Checkout.find(pytestconfig.rootpath)
