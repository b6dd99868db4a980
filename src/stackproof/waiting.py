"""The one way to wait: look again and again, to a deadline, and tell what was seen last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Of the time that one has waited, what the next pause may take, and what it takes at most.
_SHARE = 0.05
_LONGEST_S = 1.0


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
        within_s: Deadline [s]: the last look is then.
        every_s: Time between the first looks [s]. Later ones are further apart: what has taken long
            may take a little longer, and each look costs those who work meanwhile.
    """
    began = time.monotonic()
    ends = began + within_s
    while not good(seen := look()) and (now := time.monotonic()) + every_s < ends:
        pause = min(max(every_s, (now - began) * _SHARE), max(every_s, _LONGEST_S))
        time.sleep(min(pause, ends - now))
    return seen
