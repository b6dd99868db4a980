"""Waiting: look again and again, to a deadline, and tell what was seen last."""

from __future__ import annotations

import itertools
import time

from stackproof.waiting import until


def test_it_looks_until_it_is_good() -> None:
    looks = itertools.count()
    assert until(lambda: next(looks), lambda seen: seen == 3, within_s=60, every_s=0.001) == 3
    assert next(looks) == 4


def test_what_was_seen_last_is_told_when_the_time_is_up() -> None:
    looks, began = itertools.count(), time.monotonic()
    seen = until(lambda: next(looks), lambda _: False, within_s=0.2, every_s=0.05)
    assert 1 <= seen < 5
    assert seen == next(looks) - 1
    assert time.monotonic() - began < 30


def test_it_looks_once_at_least_and_not_after_the_deadline() -> None:
    looks = itertools.count()
    assert until(lambda: next(looks), lambda _: False, within_s=-1) == 0
    assert until(lambda: next(looks), lambda _: False, within_s=0.1, every_s=1) == 1


def test_who_waits_long_looks_less_often() -> None:
    looks = itertools.count()
    seen = until(lambda: next(looks), lambda _: False, within_s=0.5, every_s=0.001)
    assert seen < 200  # of the 500 that a constant pause would make
