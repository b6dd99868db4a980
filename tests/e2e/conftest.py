"""The stack under test, and one proof of it that many tests look at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stackproof import report
from stackproof.backends import Client
from stackproof.checkout import Checkout
from stackproof.deployment import Deployment
from stackproof.isolation import Proof, prove
from stackproof.session import make_stack
from stackproof.stack.base import Stack


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config, checkout: Checkout) -> Iterator[Stack]:
    """The running deployment, where --stack says."""
    provider = pytestconfig.getoption("stack")
    keep = pytestconfig.getoption("keep")
    with make_stack(provider, Deployment.load(checkout), keep=keep) as running:
        yield running


@pytest.fixture(scope="session")
def proof(stack: Stack, checkout: Checkout) -> Proof:
    """One run of the proof with all tenants, signals and read APIs; its report is written."""
    found = prove(stack)
    report.write(found, checkout.root / "build" / "report")
    return found


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """A pool of connections for further questions."""
    with Client() as shared:
        yield shared
