"""A running stack in the terminal: the progress of its proof shown, and held until Ctrl-C."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stackproof import isolation
from stackproof.backends import ESSENTIAL, PROVABLE, ReadApi
from stackproof.errors import StackproofError
from stackproof.options import check_names
from stackproof.otlp import senders, synthetic
from stackproof.otlp.synthetic import Emission
from stackproof.stack.base import Stack
from stackproof.wording import counted

#: How often it is looked whether all components of a held stack are well [s].
_HEALTH_S = 1.0


def read_apis(names: Sequence[str]) -> tuple[ReadApi, ...]:
    """Return the read APIs of these ids.

    Raises:
        UsageError: One is unknown, or cannot show a token.
    """
    known = {api.id: api for api in PROVABLE}
    check_names("read API that can be proven", names, known, "--apis")
    return tuple(api for name, api in known.items() if name in names)


@contextmanager
def progress_bar(console: Console) -> Iterator[Callable[[isolation.Progress], None] | None]:
    """Show how far a proof is, where there is a terminal: give what is to be told of it."""
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
            text = f"{now.phase}, {counted(now.tenants, 'tenant')} sent"
            progress.update(task, description=text, completed=now.done, total=now.total)

        yield update


def send_samples(stack: Stack) -> dict[str, Emission]:
    """Send each tenant's telemetry to its Alloy, once; return what was sent by whom.

    Raises:
        ExportError: It was not taken.
    """
    run = synthetic.new_run()
    sent = {}
    for tenant in stack.tenants:
        with senders.GrpcSender(stack.otlp_grpc(tenant)) as exporter:
            sent[tenant] = senders.emit(exporter, tenant, run)
    return sent


def hold(stack: Stack, tenant: str, emission: Emission, output: IO[str] | None = None) -> None:
    """Say where everything is and how it is asked, and wait for Ctrl-C.

    Raises:
        StackproofError: A component has ended meanwhile.
    """
    say = partial(print, file=output, flush=True)
    passwords: dict[str, str] = {}
    for name in stack.tenants:
        _, passwords[name] = stack.reader(name).auth or ("", "")
        say(f"{name} sends OTLP to {stack.otlp_grpc(name)} (gRPC), {stack.otlp_http(name)} (HTTP)")
        say(f"  its password: {passwords[name]}")
    access = stack.reader(tenant)
    say(f"All read at {stack.gateway_url}. What {tenant} has sent:\n")
    say(f"PASSWORD={shlex.quote(passwords[tenant])}")
    for api in ESSENTIAL:
        say(api.request(access, isolation.question(emission)).curl())
    with contextlib.suppress(KeyboardInterrupt):
        say("\nCtrl-C ends it.")
        while not (ended := stack.health()):
            time.sleep(_HEALTH_S)
        raise StackproofError("; ".join(ended), where=stack.name, todo="Start it again.")
