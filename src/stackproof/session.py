"""Prove a deployment once and show it: what `demo`, `prove` and the end-to-end tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True)
class Options:
    """How a stack is made; each provider takes what it knows.

    Args:
        keep: Leave it running when it ends.
        reuse: Use what is there of it already.
        flux: Let Flux install it in a cluster, instead of Helm.
        context: An existing cluster's context; None for the current one.
        kubeconfig: Where contexts are; None for the usual place.
        in_cluster: This runs in the cluster: no port needs to be forwarded.
        gateway_url: The gateway, where no port of it is to be forwarded.
        tenants: Whose passwords are known, where nothing but the gateway is.
        alloys: Run each tenant's Alloy; without them a tenant writes straight to the gateway.
        say: Is told what is being done.
    """

    keep: bool = False
    reuse: bool = False
    flux: bool = False
    context: str | None = None
    kubeconfig: Path | None = None
    in_cluster: bool = False
    gateway_url: str | None = None
    tenants: Sequence[str] = ()
    alloys: bool = True
    say: Callable[[str], None] = lambda _: None


# A provider is imported when it is chosen: Docker's and Kubernetes' clients are slow to import.


def _docker(deployment: Deployment, options: Options) -> Stack:
    from stackproof.stack.docker import DockerStack

    return DockerStack(deployment, keep=options.keep)


def _kind(deployment: Deployment, options: Options) -> Stack:
    from stackproof.stack.kind import KindStack

    return KindStack(
        deployment,
        keep=options.keep,
        reuse=options.reuse,
        flux=options.flux,
        say=options.say,
    )


def _cluster(_: Deployment, options: Options) -> Stack:
    from stackproof.kube import Kube
    from stackproof.stack.cluster import Addresses, ClusterStack

    kube = Kube(options.context, options.kubeconfig, in_cluster=options.in_cluster)
    return ClusterStack(kube, Addresses(options.in_cluster, options.gateway_url))


def _remote(_: Deployment, options: Options) -> Stack:
    from stackproof.stack.remote import RemoteStack

    return RemoteStack(options.gateway_url or "", options.tenants)


#: Providers that can be chosen by name; each makes its stack from a deployment.
PROVIDERS: Mapping[str, Callable[[Deployment, Options], Stack]] = {
    "local": lambda deployment, options: LocalStack(
        deployment, keep=options.keep, alloys=options.alloys
    ),
    "docker": _docker,
    "kind": _kind,
    "cluster": _cluster,
    "gateway": _remote,
}


def make_stack(provider: str, deployment: Deployment, options: Options | None = None) -> Stack:
    """Return a stack, not yet started.

    Raises:
        StackproofError: There is no such provider, or it cannot be had here.
    """
    if provider not in PROVIDERS:
        raise StackproofError(
            f"there is no stack {provider!r}",
            where="--stack",
            todo=f"Choose one of: {', '.join(PROVIDERS)}.",
        )
    return PROVIDERS[provider](deployment, options or Options())


def prepare(provider: str, console: Console, *, alloys: bool = True) -> None:
    """Build what the provider needs and is not there, showing the progress."""
    needed: tuple[str, ...] = ()
    if provider == "local":
        needed = ("render", *(name for name in PROGRAMS if alloys or name != "alloy"))
    elif provider in {"kind", "docker"}:
        from stackproof.images import Images

        needed = ("render", *Images(Checkout.find()).programs)
    for name in needed:
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
