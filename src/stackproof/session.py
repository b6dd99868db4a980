"""Prove a deployment once and show it: what `demo`, `prove` and the end-to-end tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stackproof import isolation, programs
from stackproof.checkout import Checkout
from stackproof.deployment import Deployment
from stackproof.errors import StackproofError
from stackproof.stack.base import Signal, Stack
from stackproof.stack.local import LocalStack
from stackproof.stack.pod import PROGRAMS

#: Providers that can be chosen by name; each makes its stack from a deployment.
PROVIDERS: dict[str, Callable[..., Stack]] = {"local": LocalStack}


def make_stack(provider: str, deployment: Deployment, *, keep: bool = False) -> Stack:
    """Return a stack, not yet started.

    Raises:
        StackproofError: There is no such provider.
    """
    if provider not in PROVIDERS:
        raise StackproofError(
            f"there is no stack {provider!r}",
            where="--stack",
            todo=f"Choose one of: {', '.join(PROVIDERS)}.",
        )
    return PROVIDERS[provider](deployment, keep=keep)


def prepare(provider: str, console: Console) -> None:
    """Build what the provider needs and is not there, showing the progress."""
    if provider == "local":
        for name in ("render", *PROGRAMS):
            programs.locate(name, Checkout.find(), console=console)


def prove(
    stack: Stack,
    console: Console,
    *,
    tenants: Sequence[str] | None = None,
    signals: Sequence[Signal] = tuple(Signal),
    deadline_s: float = 30.0,
) -> isolation.Proof:
    """Prove the isolation of a running stack, with a progress bar where there is a terminal."""
    with _bar(console) as update:
        return isolation.prove(
            stack, tenants, signals=signals, deadline_s=deadline_s, on_progress=update
        )


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
            progress.update(task, description=now.phase, completed=now.done, total=now.total)

        yield update


def console() -> Console:
    """Return the console for progress and summaries: standard output, quiet where it is a pipe."""
    return Console(file=sys.stdout, highlight=False)
