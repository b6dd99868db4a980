"""The per-user cache: entries appear whole or not at all, and one process at a time makes one.

An entry is a folder, `FOLDER/KEY`, made under another name beside it and then renamed. A lock on
`FOLDER` keeps a second process waiting; the kernel drops it when its holder ends, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stackproof.errors import StackproofError

_RECORD = "record.json"
_POLL_SECONDS = 0.2


def cache_root() -> Path:
    """Return the user's cache: $STACKPROOF_CACHE, else `stackproof` in $XDG_CACHE_HOME."""
    if own := os.environ.get("STACKPROOF_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(base or "~/.cache").expanduser().absolute() / "stackproof"
    except RuntimeError:  # a container's user, whom no /etc/passwd knows
        raise StackproofError(
            "there is no home directory to keep programs in",
            where="HOME",
            todo="Set STACKPROOF_CACHE to a folder that you can write.",
        ) from None


@dataclass(frozen=True, slots=True)
class Entry:
    """One file that was made for a key.

    Args:
        folder: What entries of one kind share: `CACHE/programs/loki`.
        key: Says what the file was made from.
        file: Path of the file within the entry.
    """

    folder: Path
    key: str
    file: str

    @property
    def path(self) -> Path:
        """Where the file is, once it is made."""
        return self.folder / self.key / self.file

    def ready(self) -> bool:
        """Tell whether the file is there, whole and as it was when it was made.

        Size and time of the last change are compared, and the SHA-256 where those differ (as in a
        copy of the cache).
        """
        record = self.folder / self.key / _RECORD
        try:
            made = json.loads(record.read_bytes())
            stat = self.path.stat()
            if stat.st_size != made["size"] or not os.access(self.path, os.X_OK):
                return False
            if stat.st_mtime_ns == made["mtime_ns"]:
                return True
            return bool(_sha256(self.path) == made["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def make(self, into: Callable[[Path, int], None], waiting: Callable[[str], None]) -> None:
        """Make the entry unless it is there; where another process makes it, wait for that.

        Args:
            into: Makes the file in the empty folder it is given. Its second argument is the lock's
                descriptor: a child that inherits it holds the lock for as long as it runs.
            waiting: Called once with a sentence, if there is somebody to wait for.

        Raises:
            StackproofError: The cache cannot be written, or the disk is full.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _lock(self.folder / ".lock", waiting) as lock:
                if not self.ready():
                    self._make(into, lock)
        except OSError as error:
            raise StackproofError(
                f"the cache cannot be written: {error.strerror or error}",
                where=str(self.folder),
                todo=(
                    "Free some space on this disk, or set STACKPROOF_CACHE to a folder on another."
                    if error.errno in {errno.ENOSPC, errno.EDQUOT}
                    else "Set STACKPROOF_CACHE to a folder that you can write."
                ),
            ) from error

    def _make(self, into: Callable[[Path, int], None], lock: int) -> None:
        # Nobody else uses this folder while we hold the lock: what is in it is a killed process'.
        work = self.folder / ".making"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            into(work, lock)
            made = work / self.file
            with made.open("rb") as file:
                os.fsync(file.fileno())
            stat = made.stat()
            record = {"sha256": _sha256(made), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
            (work / _RECORD).write_text(json.dumps(record), encoding="utf-8")
            entry = self.folder / self.key
            if entry.exists():  # and is not ready: damaged
                shutil.rmtree(entry)
            work.rename(entry)
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _lock(path: Path, waiting: Callable[[str], None]) -> Iterator[int]:
    """Hold the lock on `path`; the file says who does."""
    with path.open("a+", encoding="utf-8") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    told = True
                    holder = path.read_text(encoding="utf-8").strip() or "?"
                    waiting(f"process {holder} is at it already: waiting for it")
                time.sleep(_POLL_SECONDS)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
