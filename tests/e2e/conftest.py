"""Where and in which order the end-to-end tests run. Their fixtures are the plugin's."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackproof.pytest_plugin import provider
from stackproof.stack.base import Stack
from stackproof.stack.cluster import ClusterStack
from stackproof.stack.kind import KindStack

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
_WAITING = ("upgrade", "resilience", "queues", "disks", "junk", "floods", "monitor")

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what the chosen stack cannot show, with the reason."""
    stack = provider(config)
    if stack != "local":
        # One proof is looked at by many tests: before it is old, and before anything is changed.
        items.sort(key=lambda item: [_restarts(item), "cluster" in item.path.parts])
    else:
        items.sort(key=_waits)
    # pytest hands over the items of all folders.
    for item in (item for item in items if _HERE in item.path.parents):
        if stack != "local":
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S))
        stacks, reason = _RUN_ON.get(item.path.relative_to(_HERE).parts[0], ({stack}, ""))
        if stack not in stacks:
            item.add_marker(pytest.mark.skip(reason))


def _restarts(item: pytest.Item) -> bool:
    return item.get_closest_marker("needs_restart") is not None


def _waits(item: pytest.Item) -> int:
    """Return the place of a test's group among those that mostly wait; the others come after."""
    mark = item.get_closest_marker("xdist_group")
    group = mark.args[0] if mark else None
    return _WAITING.index(group) if group in _WAITING else len(_WAITING)


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
