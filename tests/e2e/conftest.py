"""The stack under test, and one proof of it that many tests look at."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from stackproof import report
from stackproof.backends import Client
from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.isolation import Proof, prove
from stackproof.kube import diagnostics
from stackproof.repo.checkout import Checkout
from stackproof.repo.versions import Versions
from stackproof.stack.base import Stack
from stackproof.stack.cluster import ClusterStack
from stackproof.stack.kind import KindStack
from stackproof.stack.providers import Options, make_stack

#: Where the tests of a folder can run; those of others run on every stack.
_RUN_ON = {
    "local": ({"local"}, "it starts local processes: STACK=local"),
    "application": ({"local"}, "it starts local processes: STACK=local"),
    "cluster": ({"kind", "cluster"}, "only a cluster shows it: STACK=kind"),
}

#: A cluster takes minutes to be made, and the test that first needs it waits for it.
_TIMEOUT_S = 1200

#: Groups of tests that mostly wait, the longest first. Side by side with what computes they cost no
#: time; at the end of a run everybody would wait for them.
_WAITING = ("resilience", "queues", "disks", "junk", "floods", "monitor")

_HERE = Path(__file__).parent

#: Evidence of the first failures; those after them mostly have the same cause.
_EVIDENCE = 3


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what the chosen stack cannot show, with the reason."""
    provider = config.getoption("stack")
    if provider != "local":
        # One proof is looked at by many tests: before it is old, and before anything is changed.
        items.sort(key=lambda item: [_restarts(item), "cluster" in item.path.parts])
    else:
        items.sort(key=_waits)
    # pytest hands over the items of all folders.
    for item in (item for item in items if _HERE in item.path.parents):
        if provider != "local":
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S))
        stacks, reason = _RUN_ON.get(item.path.relative_to(_HERE).parts[0], ({provider}, ""))
        if provider not in stacks:
            item.add_marker(pytest.mark.skip(reason))


def _restarts(item: pytest.Item) -> bool:
    return item.get_closest_marker("needs_restart") is not None


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
    if not isinstance(stack, KindStack):
        pytest.skip("it changes the deployment: STACK=kind")
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
            diagnostics.of_cluster(stack.kube, _namespaces(stack), path, users=stack.tenants)
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
    found = prove(stack, pins=Versions.load(checkout))
    report.write(found, checkout.root / "build" / "report", report.Provenance.of(checkout))
    return found


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """A pool of connections for further questions."""
    with Client() as shared:
        yield shared
