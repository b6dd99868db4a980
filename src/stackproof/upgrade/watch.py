"""Watches a rollout at every moment: owners read their own, and intruders are refused."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from stackproof.backends import ESSENTIAL, PROVABLE, Answer, Client, ReadApi
from stackproof.beside import beside
from stackproof.isolation.observer import Observer
from stackproof.isolation.refusals import Intruder, intruders, judged
from stackproof.isolation.tokens import observe, question, window
from stackproof.isolation.verdict import Observation, Violation, ViolationKind
from stackproof.model import Access, Backend
from stackproof.otlp.synthetic import Emission
from stackproof.stack.base import Stack

from .availability import Poll

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Moment:
    """A violation, and when it was seen (`time.monotonic()`)."""

    at: float
    violation: Violation


class Watch:
    """Asks in threads of its own (`over` a block).

    Each tenant reads what the proof before has shown it, through all read APIs of each backend in
    turn; its answer must hold its own token and nobody else's. And each tenant tries, with other
    means in turn, what must be refused. Every other question goes through a connection of its own,
    so that the old pod is asked for as long as it is there, and the new one as soon as it is.

    Args:
        stack: That is rolled.
        emissions: What the proof before has sent, by tenant.
        every_s: Between two looks of one reader at one backend, and of one tenant's intruders.
        client: Asks through connections that are kept.
        fresh: Asks through one of its own each time.
    """

    def __init__(
        self,
        stack: Stack,
        emissions: Mapping[str, Emission],
        every_s: float,
        client: Client,
        fresh: Client,
    ) -> None:
        self.moments: list[Moment] = []
        self.reads: dict[tuple[Backend, str], list[Poll]] = {}
        """When each tenant read from each backend, and whether it saw its own."""
        self.refusals: dict[str, list[Poll]] = {}
        """When each tenant's intruders asked, and whether they were refused."""
        self._client, self._fresh = client, fresh
        self._every_s = every_s
        signals = tuple(next(iter(emissions.values())).tokens)
        self._observer = Observer(
            stack, tuple(emissions), signals, self._client, self._client.timeout_s, emissions
        )
        self._window = window(*emissions.values())
        self._ended = threading.Event()
        loops: list[Callable[[], None]] = []
        for tenant in emissions:
            loops.append(self._intruding(tenant))
            loops += [self._reading(tenant, backend) for backend in Backend]
        self._loops = loops

    @classmethod
    @contextmanager
    def over(
        cls, stack: Stack, emissions: Mapping[str, Emission], every_s: float
    ) -> Iterator[Self]:
        """Watch for as long as a block lasts."""
        most = 4 * len(emissions)
        with Client(connections=most) as client, Client(connections=most) as fresh:
            watch = cls(stack, emissions, every_s, client, fresh)
            with beside(watch._loops, watch._ended.set):
                yield watch

    def unwatched(self) -> Iterator[str]:
        """Yield what was never answered, so that nothing is known of it."""
        for (backend, tenant), polls in self.reads.items():
            if not any(answered for _, answered in polls):
                yield f"{tenant} never saw its own in {backend}"
        for tenant, polls in self.refusals.items():
            if not any(answered for _, answered in polls):
                yield f"no intruder that uses {tenant}'s access ever got an answer"

    def _reading(self, tenant: str, backend: Backend) -> Callable[[], None]:
        polls = self.reads.setdefault((backend, tenant), [])
        apis = [api for api in PROVABLE if api.backend is backend]

        def loop() -> None:
            for api, fresh in self._turns(apis):
                began = time.monotonic()
                answer = self._ask(api, self._observer.readers[tenant], tenant, fresh)
                seen = observe(api, tenant, tenant, answer, self._observer.marks)
                if seen.own:
                    self._observer.shown.add(api.id)
                if seen.others:
                    self._note(began, _leak(api, seen))
                elif seen.answered and not seen.own and not api.volatile:
                    self._note(began, _nothing(api, seen))
                if seen.own or not api.volatile:
                    polls.append((began, seen.own))

        return loop

    def _intruding(self, tenant: str) -> Callable[[], None]:
        polls = self.refusals.setdefault(tenant, [])
        tenants = self._observer.tenants
        other = tenants[(tenants.index(tenant) + 1) % len(tenants)]
        tried = [
            (api, Intruder(tenant, other, means, access))
            for means, access in intruders(self._observer.readers[tenant], other).items()
            for api in ESSENTIAL
        ]

        def loop() -> None:
            for (api, who), fresh in self._turns(tried):
                began = time.monotonic()
                answer = self._ask(api, who.access, other, fresh)
                _, violation = judged(self._observer, api, who, answer)
                silent = violation is not None and violation.kind is ViolationKind.MISSING
                polls.append((began, not silent))
                if violation is not None and not silent:
                    self._note(began, violation)

        return loop

    def _turns(self, items: Sequence[_Item]) -> Iterator[tuple[_Item, bool]]:
        """Yield one after the other, over and over, each by turns for a fresh connection."""
        for number, item in enumerate(itertools.cycle(items)):
            if self._ended.wait(self._every_s):
                return
            yield item, (number + number // len(items)) % 2 == 0

    def _ask(self, api: ReadApi, access: Access, owner: str, fresh: bool) -> Answer:
        if fresh and not api.stream:
            access = replace(access, headers={**access.headers, "Connection": "close"})
        client = self._fresh if fresh else self._client
        return client.ask(api, access, question(self._observer.emissions[owner], self._window))

    def _note(self, at: float, violation: Violation) -> None:
        with self._observer.lock:
            self.moments.append(Moment(at, violation))


def _leak(api: ReadApi, seen: Observation) -> Violation:
    whose = sorted(seen.others)
    message = f"{seen.reader} reads {', '.join(whose)}'s {api.signal} through {api.id}"
    return Violation.through(
        api, ViolationKind.LEAK, seen.reader, whose, message, seen.request, seen.answer
    )


def _nothing(api: ReadApi, seen: Observation) -> Violation:
    message = f"{seen.reader} is answered without its own {api.signal} through {api.id}"
    return Violation.through(
        api, ViolationKind.MISSING, seen.reader, [seen.reader], message, seen.request, seen.answer
    )
