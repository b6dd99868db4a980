"""Work that goes on beside a block, in threads of its own, and ends with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def beside(works: Iterable[Callable[[], None]], end: Callable[[], None]) -> Iterator[None]:
    """Run each in a thread of its own for as long as the block lasts.

    At whatever moment Ctrl-C comes, be it while they start: they are told to end, and no thread
    holds the process back. (A `ThreadPoolExecutor` waits for its own, told or not.)

    Args:
        works: Each returns soon after `end` was called.
        end: Tells them to.

    Raises:
        BaseException: What one of them raised, after the block: whoever looked no more has seen
            nothing.
    """
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (raised again below)
            errors.append(error)

    threads: list[threading.Thread] = []
    try:
        for work in works:
            threads.append(threading.Thread(target=run, args=[work], daemon=True))
            threads[-1].start()
        yield
    finally:
        end()
        for thread in threads:
            if thread.is_alive():
                thread.join()
    if errors:
        raise errors[0]
