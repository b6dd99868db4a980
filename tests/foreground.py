"""Processes that are started as from a terminal, whatever started the tests."""

from __future__ import annotations

import signal


def usual_signals() -> None:
    """Undo what is inherited: a shell's background ignores SIGINT, and nohup SIGHUP.

    For `subprocess.Popen(preexec_fn=…)`.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
