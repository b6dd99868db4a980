"""Where a deployment runs: each provider by its name, and what it needs before it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from stackproof.flux.deployment import Deployment
from stackproof.options import check_names
from stackproof.repo.checkout import Checkout
from stackproof.toolchain import programs

from .base import Stack
from .local import LocalStack
from .pod import PROGRAMS


@dataclass(frozen=True, slots=True)
class Options:
    """How a stack is made; each provider reads the options that concern it.

    Args:
        keep: When it ends, leave the cluster or the directory behind.
        reuse: Use the cluster that is there already.
        flux: Let Flux install it in a cluster, instead of Helm.
        context: An existing cluster's context; None for the current one.
        kubeconfig: Where contexts are; None for the usual place.
        in_cluster: This runs in the cluster: no port needs to be forwarded.
        gateway_url: The gateway, where no port of it is to be forwarded.
        tenants: Whose passwords are known, where nothing but the gateway is.
        alloys: Run each tenant's Alloy; without them a tenant writes straight to the gateway.
        say: Called with a sentence for each thing that is being done.
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
    from .docker import DockerStack

    return DockerStack(deployment, keep=options.keep)


def _kind(deployment: Deployment, options: Options) -> Stack:
    from .kind import KindStack

    return KindStack(
        deployment, keep=options.keep, reuse=options.reuse, flux=options.flux, say=options.say
    )


def _cluster(_: Deployment, options: Options) -> Stack:
    from stackproof.kube.client import Kube

    from .cluster import ClusterStack

    kube = Kube(options.context, options.kubeconfig, in_cluster=options.in_cluster)
    return ClusterStack(kube, in_cluster=options.in_cluster, gateway_url=options.gateway_url)


def _remote(_: Deployment, options: Options) -> Stack:
    from .remote import RemoteStack

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
    check_names("stack", [provider], PROVIDERS, "--stack")
    return PROVIDERS[provider](deployment, options or Options())


def prepare(provider: str, console: Console, *, alloys: bool = True) -> None:
    """Get the programs that the provider needs and that are missing, and show the progress."""
    needed: tuple[str, ...] = ()
    if provider == "local":
        needed = ("render", *(name for name in PROGRAMS if alloys or name != "alloy"))
    elif provider in {"kind", "docker"}:
        from stackproof.toolchain.images import Images

        needed = ("render", *Images(Checkout.find()).programs)
    for name in needed:
        programs.locate(name, Checkout.find(), console=console)
