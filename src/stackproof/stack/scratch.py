"""A stack's directory: in memory where there is room, and never left there for long.

A stack that is killed cannot clean up. So each directory in memory is locked by the process that
made it, and the next stack removes those whose lock nobody holds: the kernel drops a lock with its
process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a directory of its own there
_PREFIX = "stackproof-"
_LOCK = ".lock"
#: Data is thrown away with the stack, so it may as well be in memory, where there is this much.
_ROOM_BYTES = 4 * 2**30


class Scratch:
    """A new directory; `keep` is for one that is to be looked at later, and so is on disk.

    Args:
        keep: Leave it there.
        memory: Where directories in memory are; a `TMPDIR` in the environment wins.
    """

    def __init__(self, *, keep: bool = False, memory: Path = MEMORY) -> None:
        self._keep = keep
        self._lock: IO[str] | None = None
        if not keep and has_room(memory):
            sweep(memory)
            self.path, self._lock = _locked(memory)
        else:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))

    def remove(self) -> None:
        """Remove the directory with all that is in it, but for one that is kept."""
        if not self._keep:
            shutil.rmtree(self.path, ignore_errors=True)
        if self._lock:
            self._lock.close()


def _locked(memory: Path) -> tuple[Path, IO[str]]:
    """Return a new directory in memory, which gets its name when its lock is held.

    Under that name another stack's sweep would take it for one that its process left.
    """
    unnamed = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=memory))
    lock = (unnamed / _LOCK).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return unnamed.rename(memory / unnamed.name[1:]), lock


def has_room(memory: Path) -> bool:
    """Tell whether directories may be in memory: there is enough of it, and no TMPDIR."""
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK):
        return False
    return shutil.disk_usage(memory).free >= _ROOM_BYTES


def sweep(memory: Path) -> None:
    """Remove this user's directories whose process is gone; the others are left alone."""
    for lock in memory.glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), lock.open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.stat().st_uid == os.getuid():
                shutil.rmtree(lock.parent, ignore_errors=True)
