"""The stack under test, and one proof of it that many tests look at."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from stackproof import evidence, report
from stackproof.backends import Client
from stackproof.checkout import Checkout
from stackproof.deployment import Deployment
from stackproof.errors import StackproofError
from stackproof.isolation import Proof, prove
from stackproof.session import Options, make_stack
from stackproof.stack.base import Stack
from stackproof.stack.cluster import ClusterStack
from stackproof.stack.kind import KindStack

#: A fixture that is the stack under test: tests without one start what they need themselves.
_UNDER_TEST = {"stack", "kind", "cluster"}
_CLUSTERS = {"kind", "cluster"}

#: A cluster takes minutes to be made, and the test that first needs it waits for it.
_TIMEOUT_S = 1200

#: Groups of tests that mostly wait, the longest first. Side by side with what computes they cost no
#: time; at the end of a run everybody would wait for them.
_WAITING = ("resilience", "queues", "disks", "junk", "floods", "monitor")

#: Tests marked so run after the others, those with the first of the marks last.
_LATER = ("needs_restart", "needs_cluster")

_HERE = Path(__file__).parent

#: Evidence of the first failures; those after them mostly have the same cause.
_EVIDENCE = 3


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what the chosen stack cannot show, with the reason."""
    provider = config.getoption("stack")
    if provider != "local":
        # One proof is looked at by many tests: before it is old, and before anything is changed.
        items.sort(key=lambda item: [bool(item.get_closest_marker(name)) for name in _LATER])
    else:
        items.sort(key=_waits)
    # pytest hands over the items of all folders: an argument called `kind` is no fixture elsewhere.
    for item in (item for item in items if _HERE in item.path.parents):
        used = set(getattr(item, "fixturenames", ()))
        if provider != "local":
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S))
        if item.get_closest_marker("needs_cluster") and provider not in _CLUSTERS:
            item.add_marker(pytest.mark.skip("only a cluster shows it: STACK=kind"))
        elif "kind" in used and provider != "kind":
            item.add_marker(pytest.mark.skip("it changes the deployment: STACK=kind"))
        elif provider != "local" and not used & _UNDER_TEST:
            item.add_marker(pytest.mark.skip("it starts local processes: STACK=local"))


def _waits(item: pytest.Item) -> int:
    """Return the place of a test's group among those that mostly wait; the others come after."""
    mark = item.get_closest_marker("xdist_group")
    group = mark.args[0] if mark else None
    return _WAITING.index(group) if group in _WAITING else len(_WAITING)


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config, checkout: Checkout) -> Iterator[Stack]:
    """The running deployment, where --stack says."""
    options = Options(
        keep=pytestconfig.getoption("keep"),
        reuse=pytestconfig.getoption("reuse"),
        context=pytestconfig.getoption("context"),
        # Past pytest's capture: minutes without a word look like a hang.
        say=lambda text: print(f"\n{text}", end="", file=sys.__stderr__, flush=True),
    )
    with make_stack(pytestconfig.getoption("stack"), Deployment.load(checkout), options) as running:
        pytestconfig.stash[_STACK] = running
        yield running
        del pytestconfig.stash[_STACK]


@pytest.fixture(scope="session")
def cluster(stack: Stack) -> ClusterStack:
    """The stack under test, where it is in a cluster."""
    assert isinstance(stack, ClusterStack)
    return stack


@pytest.fixture(scope="session")
def kind(stack: Stack) -> KindStack:
    """The stack under test, where it is a cluster of our own."""
    assert isinstance(stack, KindStack)
    return stack


_STACK: pytest.StashKey[Stack] = pytest.StashKey()
_KEPT: pytest.StashKey[list[Path]] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],  # noqa: ARG001
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the evidence of a failure while what failed is still there."""
    made = yield
    stack = item.config.stash.get(_STACK, None)
    kept = item.config.stash.setdefault(_KEPT, [])
    if made.failed and stack and hasattr(stack, "kube") and len(kept) < _EVIDENCE:
        folder = item.config.getoption("evidence_dir")
        folder = folder or Checkout.find(item.config.rootpath).root / "build" / "evidence"
        path = folder / f"{re.sub(r'[^a-zA-Z0-9]+', '-', item.name)[:80]}.tar.gz"
        try:
            evidence.of_cluster(stack.kube, _namespaces(stack), path, users=stack.tenants)
            kept.append(path)
            made.sections.append(("evidence", str(path)))
        except StackproofError as error:
            made.sections.append(("evidence", f"none: {error}"))
    return made


def _namespaces(stack: Stack) -> list[str]:
    return ["flux-system", "external-secrets", *getattr(stack, "namespaces", ())]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say where the evidence is."""
    for path in config.stash.get(_KEPT, []):
        terminalreporter.write_line(f"evidence: {path}")


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
