"""A child process that never outlives us and whose death is never missed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from stackproof.errors import StackproofError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """In the child: be killed when the parent is gone, even by SIGKILL (Linux only)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def peak_bytes(pid: int | str = "self") -> int:
    """Return the most resident memory that a process had so far; 0 where the kernel says none."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


class ProgramProcess(Protocol):
    """A program that was started, on this machine or in a container."""

    name: str
    env: Mapping[str, str]
    """Its environment, with addresses as this machine reaches them."""
    log: Path

    def start(self) -> None:
        """Start it; it may have run before."""

    @property
    def pid(self) -> int | None:
        """Of the running or ended program, as this machine sees it; None before `start`."""

    def ended(self) -> str | None:
        """How it ended ("killed by SIGKILL", "exited with 1"), None while it runs."""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens where it has ended."""

    def kill(self) -> None:
        """End it at once, and wait until it is gone."""

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""

    def peak_bytes(self) -> int:
        """The most resident memory that it had so far (`VmHWM`); 0 where the kernel says none."""
        return peak_bytes(self.pid) if self.pid and self.ended() is None else 0

    def cpu_s(self) -> float:
        """Processor time that it has used, of user and kernel; 0 where the kernel says none."""
        stat = Path(f"/proc/{self.pid}/stat")
        if self.ended() is not None or not stat.exists():
            return 0.0
        # proc(5): utime and stime are fields 14 and 15; the name before them may hold blanks.
        fields = stat.read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Process(ProgramProcess):
    """One program. Start it from the main thread: Linux ties it to the thread that started it."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    directory: Path
    log: Path
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start the program with just this environment; what it prints goes to `log`.

        Its temporary files are in its directory, to go with it: whoever is killed removes none.

        Raises:
            StackproofError: The program cannot be started at all.
        """
        try:
            with self.log.open("ab") as log:
                self._child = subprocess.Popen(
                    self.argv,
                    env={"TMPDIR": str(self.directory), **self.env},
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C reaches us, and we end it in order
                    preexec_fn=_die_with_parent,
                )
        except OSError as error:
            raise StackproofError(
                f"cannot be started: {error.strerror}",
                where=self.argv[0],
                todo="Run `make tools`, or remove what overrides it in the environment.",
            ) from error

    @property
    def pid(self) -> int | None:
        """Of the running or ended program; None before `start`."""
        return self._child.pid if self._child else None

    def ended(self) -> str | None:
        """How it ended ("killed by SIGKILL", "exited with 1"), None while it runs."""
        code = self._child.poll() if self._child else None
        if code is None:
            return None
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens where it has ended."""
        if self._child and self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(number)

    def kill(self) -> None:
        """End it and all that it started, at once, and wait until it is gone."""
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
