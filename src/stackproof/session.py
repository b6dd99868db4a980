"""Prove a deployment once and show it: what `demo`, `prove` and the end-to-end tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stackproof import isolation, programs
from stackproof.backends import PROVABLE, ReadApi
from stackproof.checkout import Checkout
from stackproof.deployment import Deployment
from stackproof.errors import StackproofError
from stackproof.stack.base import Signal, Stack
from stackproof.stack.local import LocalStack
from stackproof.stack.pod import PROGRAMS

#: Providers that can be chosen by name; each makes its stack from a deployment.
PROVIDERS: dict[str, Callable[..., Stack]] = {"local": LocalStack}


def make_stack(provider: str, deployment: Deployment, **options: bool) -> Stack:
    """Return a stack, not yet started; `options` are those of its class.

    Raises:
        StackproofError: There is no such provider.
    """
    if provider not in PROVIDERS:
        raise StackproofError(
            f"there is no stack {provider!r}",
            where="--stack",
            todo=f"Choose one of: {', '.join(PROVIDERS)}.",
        )
    return PROVIDERS[provider](deployment, **options)


def prepare(provider: str, console: Console, *, alloys: bool = True) -> None:
    """Build what the provider needs and is not there, showing the progress."""
    if provider == "local":
        for name in ("render", *PROGRAMS):
            if alloys or name != "alloy":
                programs.locate(name, Checkout.find(), console=console)


def prove(
    stack: Stack,
    console: Console,
    *,
    tenants: Sequence[str] | None = None,
    signals: Sequence[Signal] = tuple(Signal),
    apis: Sequence[ReadApi] = PROVABLE,
    deadline_s: float = 30.0,
    door: isolation.Door = isolation.Door.ALLOY_GRPC,
) -> isolation.Proof:
    """Prove the isolation of a running stack, with a progress bar where there is a terminal."""
    with _bar(console) as update:
        return isolation.prove(
            stack,
            tenants,
            signals=signals,
            apis=apis,
            deadline_s=deadline_s,
            door=door,
            on_progress=update,
        )


def read_apis(names: Sequence[str]) -> tuple[ReadApi, ...]:
    """Return the read APIs of these ids.

    Raises:
        StackproofError: One is unknown, or cannot show a token.
    """
    known = {api.id: api for api in PROVABLE}
    unknown = sorted(set(names) - known.keys())
    if unknown:
        raise StackproofError(
            f"nothing can be proven through {', '.join(unknown)}",
            where="--apis",
            todo=f"Choose from: {', '.join(known)}.",
        )
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
