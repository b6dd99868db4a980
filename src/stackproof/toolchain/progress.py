"""How far it is, where getting a program takes a while: a bar on a terminal, else lines."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich import progress as rich
from rich.console import Console

_MINUTE_S = 60


class Progress:
    """Lines, for where nobody watches: at the start, once a minute, and at the end."""

    def __init__(self, console: Console, what: str) -> None:
        self._console = console
        self._what = what
        self._doing = ""
        self._minutes = 0.0
        self._started = time.monotonic()
        self._told = 0

    def say(self, text: str) -> None:
        """Say of the program what takes a while."""
        self.tell(f"{self._what}: {text}")

    def tell(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, doing: str, minutes: float) -> None:
        """Begin what usually takes so many minutes."""
        self._doing, self._minutes = doing, minutes
        self._started, self._told = time.monotonic(), 0
        self.tell(f"{doing} …")

    def tick(self, share: float | None = None) -> None:  # noqa: ARG002
        """Go on; called several times a second, with the share that is done where it is known."""
        minutes = int((time.monotonic() - self._started) / _MINUTE_S)
        if minutes > self._told:
            self._told = minutes
            self.tell(f"{self._doing}: {minutes} min so far")

    def end(self, done: str) -> None:
        """End it."""
        self.tell(f"{done} in {time.monotonic() - self._started:.0f} s")


class _Bar(Progress):
    """A bar against the share that is done, or the time that is expected."""

    def __init__(self, console: Console, what: str, bar: rich.Progress) -> None:
        super().__init__(console, what)
        self._bar = bar
        self._task = bar.add_task(what, total=None)

    def say(self, text: str) -> None:
        self._bar.update(self._task, description=f"{self._what}: {text}")

    def begin(self, doing: str, minutes: float) -> None:
        self._minutes, self._started = minutes, time.monotonic()
        self._bar.reset(self._task, total=1)
        self._bar.update(self._task, description=doing)

    def tick(self, share: float | None = None) -> None:
        if share is None:
            share = (time.monotonic() - self._started) / (self._minutes * _MINUTE_S)
        # A slow machine takes longer than we measured: the bar then waits just below its end.
        self._bar.update(self._task, completed=min(share, 0.99))


@contextlib.contextmanager
def shown(console: Console, what: str) -> Iterator[Progress]:
    """Show the progress of getting a program, for as long as the block runs."""
    if not console.is_terminal:
        yield Progress(console, what)
        return
    columns = (
        rich.SpinnerColumn(),
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.TimeElapsedColumn(),
    )
    with rich.Progress(*columns, console=console, transient=True) as bar:
        yield _Bar(console, what, bar)


def minutes(number: float) -> str:
    """Return an expected time in words."""
    return "a minute" if number <= 1 else f"{number:g} minutes"
