"""Loopback ports for programs that are about to start, never given twice.

A port that the kernel chose can be gone before the program binds it. So a port is leased: a lock on
a file of its name keeps every other stack of this user away, and the kernel drops the lock with the
process, however that ends. Ports come from below the range that outgoing connections use.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

from stackproof.errors import StackproofError

_RANGE = range(20000, 32000)


class PortLeases:
    """The ports of one stack, held until `release`."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.gettempdir()) / f"stackproof-ports-{os.getuid()}"
        self._locks: list[IO[str]] = []

    def lease(self) -> int:
        """Return a free loopback port that no other stack will be given meanwhile.

        Raises:
            StackproofError: Every port that was tried is in use.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for port in random.sample(_RANGE, 200):
            lock = (self._folder / str(port)).open("w")
            if _locked(lock) and _bindable(port):
                self._locks.append(lock)
                return port
            lock.close()
        raise StackproofError(
            f"200 ports between {_RANGE.start} and {_RANGE.stop} are all in use",
            where="127.0.0.1",
            todo="End programs that listen there and try again.",
        )

    def release(self) -> None:
        """Give all ports back."""
        while self._locks:
            self._locks.pop().close()


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
