"""The one way to wait: look again and again, to a deadline, and tell what was seen last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    look: Callable[[], T],
    good: Callable[[T], object] = bool,
    *,
    within_s: float,
    every_s: float = 0.1,
) -> T:
    """Look until what is seen is good or the time is up, once at least; return what was seen last.

    Whoever waits for something in order to demand it says the same twice, so that the message
    shows what was there instead: `assert until(look, good, within_s=5) == wanted`.

    Args:
        look: Returns what is there now.
        good: Says whether that is what is waited for.
        within_s: Deadline [s]: no look begins after it.
        every_s: Time between two looks [s].
    """
    ends = time.monotonic() + within_s
    while not good(seen := look()) and time.monotonic() + every_s < ends:
        time.sleep(every_s)
    return seen
