"""What happens to the pods of a cluster while something rolls out, seen from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from stackproof.beside import beside
from stackproof.kube.client import Kube, Object, is_ready

from .rollout import ENDED, ENDING, READY, STARTED, RollEvent

_COMPONENT = "app.kubernetes.io/component"
_EVERY_S = 0.2


class PodEvents:
    """Looks again and again, for as long as a block of `seen` lasts.

    Args:
        kube: The cluster.
        namespaces: Where the pods are; in the first a component has its bare name.
    """

    def __init__(self, kube: Kube, namespaces: Iterable[str]) -> None:
        self._kube = kube
        self._first, *_ = self._namespaces = tuple(namespaces)
        self._names: dict[str, str] = {}
        self._told: set[tuple[str, str]] = set()
        self.events: list[RollEvent] = []
        self._look()
        self.events.clear()

    @property
    def changed(self) -> tuple[str, ...]:
        """The components that had a pod that was begun or ended, in this order."""
        return tuple(dict.fromkeys(each.component for each in self.events if each.what != READY))

    @contextmanager
    def seen(self) -> Iterator[None]:
        """Look beside a block, and once more after it."""
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(_EVERY_S):
                self._look()

        with beside([work], ended.set):
            yield
        self._look()

    def _look(self) -> None:
        now = {pod["metadata"]["uid"]: pod for pod in self._pods()}
        for uid in self._names.keys() - now.keys():
            self._tell(uid, ENDED)
        for uid, pod in now.items():
            if uid not in self._names:
                self._names[uid] = self._name(pod)
                self._tell(uid, STARTED)
            if is_ready(pod):
                self._tell(uid, READY)
            if "deletionTimestamp" in pod["metadata"]:
                self._tell(uid, ENDING)

    def _pods(self) -> Iterator[Object]:
        for pod in self._kube.listed("v1", "Pod", labels=_COMPONENT):
            if pod["metadata"]["namespace"] in self._namespaces:
                yield pod

    def _name(self, pod: Object) -> str:
        metadata = pod["metadata"]
        component, namespace = metadata["labels"][_COMPONENT], metadata["namespace"]
        return component if namespace == self._first else f"{component}.{namespace}"

    def _tell(self, uid: str, what: str) -> None:
        """Tell of each pod each thing once."""
        if (uid, what) not in self._told:
            self._told.add((uid, what))
            self.events.append(RollEvent(time.monotonic(), self._names[uid], what))
