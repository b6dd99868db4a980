"""The terminal, as the commands share it: the console, and a proof with its progress shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stackproof import isolation
from stackproof.backends import PROVABLE, ReadApi
from stackproof.model import Signal
from stackproof.options import check_names
from stackproof.repo.versions import Versions
from stackproof.stack.base import Stack


def prove(
    stack: Stack,
    console: Console,
    *,
    tenants: Sequence[str] | None = None,
    signals: Sequence[Signal] = tuple(Signal),
    apis: Sequence[ReadApi] = PROVABLE,
    deadline_s: float = 30.0,
    entry_point: isolation.EntryPoint = isolation.EntryPoint.ALLOY_GRPC,
    pins: Versions | None = None,
) -> isolation.Proof:
    """Prove the isolation of a running stack, with a progress bar where there is a terminal."""
    with _bar(console) as update:
        return isolation.prove(
            stack,
            tenants,
            signals=signals,
            apis=apis,
            deadline_s=deadline_s,
            entry_point=entry_point,
            on_progress=update,
            pins=pins,
        )


def read_apis(names: Sequence[str]) -> tuple[ReadApi, ...]:
    """Return the read APIs of these ids.

    Raises:
        UsageError: One is unknown, or cannot show a token.
    """
    known = {api.id: api for api in PROVABLE}
    check_names("read API that can be proven", names, known, "--apis")
    return tuple(api for name, api in known.items() if name in names)


@contextmanager
def _bar(console: Console) -> Iterator[Callable[[isolation.Progress], None] | None]:
    if not console.is_terminal:
        yield None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("proving", total=None)

        def update(now: isolation.Progress) -> None:
            text = f"{now.phase}, {now.tenants} tenants sent"
            progress.update(task, description=text, completed=now.done, total=now.total)

        yield update


def console() -> Console:
    """Return the console for progress and summaries: standard output, quiet where it is a pipe."""
    return Console(file=sys.stdout, highlight=False)
