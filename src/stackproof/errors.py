"""The one error that a user sees: what is wrong, where, and what to do about it."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import ClassVar


class ExitCode(IntEnum):
    """What a command ends with. The first three are its answer; the others: there is none.

    From 64 on they are those of sysexits.h and, for signals, the shell's.
    """

    GOOD = 0
    """Everything is as it must be: `isolated`."""
    BAD = 1
    """Something is wrong: `leaking`."""
    UNDECIDED = 2
    """It was tried, but something remained unknown: `incomplete`."""
    USAGE = os.EX_USAGE
    """The command line is wrong, or names something that does not exist."""
    UNAVAILABLE = os.EX_UNAVAILABLE
    """It could not run: something that it needs is missing, wrong or not answering."""
    INTERNAL = os.EX_SOFTWARE
    """A fault of stackproof itself: please report it."""
    HUNG_UP = 128 + signal.SIGHUP
    """Ended by SIGHUP (its terminal was closed), once everything that it had started had ended."""
    INTERRUPTED = 128 + signal.SIGINT
    """Ctrl-C."""
    UNREAD = 128 + signal.SIGPIPE
    """Whoever read the answer (`| head`) stopped before its end."""
    TERMINATED = 128 + signal.SIGTERM
    """Ended by SIGTERM, once everything that it had started had ended."""


class StackproofError(Exception):
    """A problem that its reader can act on: shown as one message, without a traceback.

    Args:
        what: What was found, as a sentence without its full stop.
        where: The file (with line and column), the endpoint or the program that it was found in.
        todo: What to do about it, as a sentence.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.UNAVAILABLE

    def __init__(self, what: str, where: str | None = None, todo: str | None = None) -> None:
        super().__init__(what, where, todo)
        self.what = what
        self.where = where
        self.todo = todo

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if not self.todo:
            return text
        # What is a block of lines, or a sentence already, keeps its own end.
        end = "\n" if "\n" in text else " " if text.endswith((".", "!", "?")) else ". "
        return f"{text}{end}{self.todo}"


#: What a command needs that is not installed with the package itself: module and extra.
EXTRAS = {
    "cel_expr_python": "flux",
    "docker": "docker",
    "pytest_kind": "kind",
    "testcontainers": "docker",
}


def not_installed(error: ModuleNotFoundError) -> StackproofError | None:
    """Say which extra a missing module is of; None where it is of none."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        return None
    return StackproofError(
        f"the package {module} is not installed",
        todo=f"It comes with an extra: pip install 'stackproof[{EXTRAS[module]}]'.",
    )


class UsageError(StackproofError):
    """The command line, or a variable that belongs to it, is wrong or names something unknown."""

    exit_code = ExitCode.USAGE


@contextmanager
def writing(folder: Path, option: str = "--report") -> Iterator[None]:
    """Make a folder to write into; an `OSError` of the block becomes a message with a remedy.

    Raises:
        StackproofError: The folder or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise StackproofError(
            f"cannot be written: {error.strerror}",
            where=str(error.filename or folder),
            todo="Free some space there." if full else f"Choose another place: {option}.",
        ) from error
