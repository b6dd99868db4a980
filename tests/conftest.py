"""Fixtures that unit and end-to-end tests share."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from stackproof.repo.checkout import Checkout

# What is found must not depend on how busy the machine is, nor on what was found before.
settings.register_profile(
    "suite", deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("suite")

# What make was given for this run is not for a make that a test runs.
for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARGS"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def checkout(pytestconfig: pytest.Config) -> Checkout:
    """The repository under test."""
    return Checkout.find(pytestconfig.rootpath)
