"""A program that lives as long as this process, and answers one request a line."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypeVar

from stackproof.errors import StackproofError

T = TypeVar("T")


class EndedError(Exception):
    """The program ended instead of answering; the message is its standard error."""


class Conversation:
    """Asks one program, which it starts when needed, and anew after a fork. Safe for threads."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._owner = 0
        self._said: IO[bytes] | None = None

    def ask(self, lines: Sequence[str], read: Callable[[bytes], T]) -> list[T]:
        """Send requests, all before the first answer is read: the program reads on meanwhile.

        Raises:
            EndedError: The program ended over it.
        """
        with self._lock:
            process = self._running()
            assert process.stdin and process.stdout
            try:
                process.stdin.write(("\n".join(lines) + "\n").encode())
                process.stdin.flush()
                return [read(_whole(process.stdout.readline())) for _ in lines]
            except (OSError, EOFError):
                raise EndedError(self._end()) from None
            except BaseException:
                self._end()  # half a conversation is of no use: whoever asks next starts a new one
                raise

    def close(self) -> None:
        """End the process. The next request starts another."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process and self._owner == os.getpid() and self.process.poll() is None:
            return self.process
        self._end()
        said = tempfile.TemporaryFile()  # noqa: SIM115 (closed by _end)
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(
                [self.program], stdin=pipe, stdout=pipe, stderr=said, bufsize=1 << 20
            )
        except OSError as error:
            said.close()
            raise StackproofError(
                f"cannot be started: {error.strerror}", where=str(self.program)
            ) from None
        self._owner, self._said = os.getpid(), said
        return self.process

    def _end(self) -> str:
        """End the process and close its pipes; return its standard error."""
        process, said = self.process, self._said
        self.process = self._said = None
        if process is None or said is None:
            return ""
        if self._owner == os.getpid():  # else it belongs to the process that this one forked from
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what cannot be written goes to nobody
                assert pipe
                pipe.close()
        with said:
            said.seek(0)
            return said.read().decode(errors="replace").strip()


def _whole(line: bytes) -> bytes:
    if not line.endswith(b"\n"):
        raise EOFError
    return line
