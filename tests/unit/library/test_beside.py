"""Work beside a block: it ends with the block, however that ends."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from stackproof.beside import beside


def test_it_goes_on_until_the_block_ends() -> None:
    ended, began, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        ended.wait()
        done.set()

    with beside([work], ended.set):
        assert began.wait(10)
        assert not done.is_set()
    assert done.is_set()


def test_what_it_raised_is_raised_after_the_block() -> None:
    def fail() -> None:
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"), beside([fail], lambda: None):
        pass


def test_what_the_block_raised_comes_first() -> None:
    def fail() -> None:
        raise ValueError("a fault")

    with pytest.raises(KeyError), beside([fail], lambda: None):
        raise KeyError


def test_ctrl_c_while_they_start_ends_those_that_have_begun() -> None:
    ended, done = threading.Event(), threading.Event()

    def work() -> None:
        ended.wait()
        done.set()

    def works() -> Iterator[Callable[[], None]]:
        yield work
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), beside(works(), ended.set):
        pass
    assert done.is_set()


def test_nobody_holds_the_process_back() -> None:
    """Whoever was not told to end, as Ctrl-C came between the block and the telling."""
    program = """
import threading
from stackproof.beside import beside

block = beside([threading.Event().wait], lambda: None)
block.__enter__()
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 0
