"""Run many small tasks that may have to be tried again, on few threads."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

#: A task returns None when it is done, or the seconds after which it wants to run again.
Task = Callable[[], float | None]


class Schedule:
    """A queue of tasks ordered by the time at which each is due.

    A task that waits for something to appear gives its thread back meanwhile, so a thousand polls
    need no more threads than there are connections. Tasks may add further tasks.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._ready = threading.Condition()
        self._queue: list[tuple[float, int, Task]] = []
        self._order = itertools.count()
        self._open = 0
        self._ended = False
        self._error: BaseException | None = None
        self.done = 0

    def add(self, task: Task, *, after_s: float = 0.0) -> None:
        """Run `task` on one of the threads, not before `after_s` seconds from now."""
        with self._ready:
            self._open += 1
            self._push(task, after_s)

    def _push(self, task: Task, after_s: float) -> None:
        heapq.heappush(self._queue, (time.monotonic() + after_s, next(self._order), task))
        self._ready.notify()

    @property
    def total(self) -> int:
        """How many tasks were added so far."""
        return self.done + self._open

    def run(self, meanwhile: Callable[[], None], *, every_s: float = 0.2) -> None:
        """Return when no task is left; call `meanwhile` on this thread now and then.

        What a task or `meanwhile` raises ends the run (Ctrl-C as well) and is raised here, after
        the tasks that are running have come back.
        """
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._workers)]
        for thread in threads:
            thread.start()
        try:
            while True:
                with self._ready:
                    if self._ready.wait_for(self._finished, timeout=every_s):
                        break
                meanwhile()
        finally:
            with self._ready:
                self._ended = True
                self._ready.notify_all()
            for thread in threads:
                thread.join()
        if self._error is not None:
            raise self._error

    def _finished(self) -> bool:
        return self._open == 0 or self._error is not None

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                again = task()
            except BaseException as error:  # noqa: BLE001 - raised again by run()
                with self._ready:
                    self._error = error
                    self._ready.notify_all()
                return
            with self._ready:
                if again is not None:
                    self._push(task, again)
                    continue
                self._open -= 1
                self.done += 1
                if self._open == 0:
                    self._ready.notify_all()

    def _next(self) -> Task | None:
        with self._ready:
            while True:
                if self._ended or self._finished():
                    return None
                if not self._queue:
                    self._ready.wait()
                    continue
                wait = self._queue[0][0] - time.monotonic()
                if wait <= 0:
                    return heapq.heappop(self._queue)[2]
                self._ready.wait(wait)
