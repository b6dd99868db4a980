"""Prove on a stack that no tenant reads, writes or disturbs another's telemetry.

Writes build/report/isolation.json and build/report/index.html; with some tenants or read APIs only,
into build/report/partial.
Exit code: 0 isolated, 1 leaking, 2 incomplete.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stackproof.errors import UsageError
from stackproof.options import (
    add_deadline,
    add_json,
    add_junit,
    add_kubeconfig,
    add_report,
    check_names,
    count,
    names,
    refuse_beside,
    word,
)
from stackproof.repo.checkout import Checkout
from stackproof.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from stackproof.backends import ReadApi
    from stackproof.isolation import Proof
    from stackproof.stack.base import Stack
    from stackproof.stack.targets import TargetsStack

#: The stacks that are made from this checkout, so that their tenants are known beforehand.
OURS = frozenset({"local", "docker", "kind"})
#: On which stacks an option means something.
_ONLY = {
    "context": ("cluster",),
    "kubeconfig": ("cluster",),
    "in_cluster": ("cluster",),
    "gateway_url": ("gateway", "cluster"),
    "reuse": ("kind",),
    "flux": ("kind",),
    "keep": ("local", "docker", "kind"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is proven, and where."""
    parser.add_argument(
        "--stack",
        type=word,
        help="where it runs: local (default), docker, kind, cluster (an existing one), or gateway "
        "(only its URL and the tenants' passwords are known)",
    )
    parser.add_argument(
        "--targets",
        type=Path,
        metavar="FILE",
        help="any deployment: the file says where each tenant writes and reads",
    )
    parser.add_argument(
        "--context",
        type=word,
        metavar="NAME",
        help="an existing cluster's context in the kubeconfig",
    )
    add_kubeconfig(parser)
    parser.add_argument(
        "--in-cluster", action="store_true", help="this runs in a pod of the cluster"
    )
    parser.add_argument(
        "--gateway-url",
        type=word,
        metavar="URL",
        help="where the gateway is, instead of forwarding its port",
    )
    parser.add_argument("--reuse", action="store_true", help="use the kind cluster if there is one")
    parser.add_argument(
        "--flux", action="store_true", help="let Flux install it in the kind cluster, not Helm"
    )
    parser.add_argument(
        "--tenants", type=names, metavar="A,B", help="prove only these tenants (default: all)"
    )
    add_deadline(parser)
    parser.add_argument(
        "--apis",
        type=names,
        metavar="A,B",
        help="ask only these read APIs (default: all; see --synthetic)",
    )
    parser.add_argument(
        "--synthetic",
        type=count(at_least=0, at_most=9999),
        default=0,
        metavar="N",
        help="prove N made-up tenants besides the real ones: no Alloys, every tenant writes to the "
        "gateway; asks one read API of each backend unless --apis says otherwise",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave configurations, logs and data behind, and a local stack that is not isolated "
        "running until Ctrl-C",
    )
    parser.add_argument(
        "--metrics-as",
        type=word,
        metavar="TENANT",
        help="also send the verdict as metrics, as this tenant",
    )
    add_report(parser)
    add_json(parser)
    add_junit(parser)


def run(args: argparse.Namespace) -> int:
    """Start the stack, prove, show and write the report; the exit code is the verdict's."""
    from stackproof import live, report, terminal
    from stackproof.repo import results

    account = "a pod asks the cluster that it runs in, as its own account"
    refuse_beside(args, "--in-cluster", ["--context", "--kubeconfig"], account)
    apis = _apis(args)
    console = terminal.console(args)
    absent: tuple[str, ...] = ()
    stack: Stack
    if args.targets:
        stack = targets = _targets(args)
        absent = targets.absent
        of = results.Provenance.of_files(args.targets)
    else:
        stack = _deployment(args, args.tenants, console)
        of = results.Provenance.of(Checkout.find())
    began = time.monotonic()
    with stack:
        ready = time.monotonic()
        _check_names(args.metrics_as, args.tenants, stack.tenants)
        proof = _proven(stack, args, apis, console)
        decided = time.monotonic()
        report.show(proof, console)
        folder = args.report or Checkout.report_folder()
        whole = report.is_whole(proof, stack.tenants, absent)
        page = report.write(proof, folder, of, whole=whole)
        terminal.answer(args, page.with_name("isolation.json"), report.cases(proof))
        if args.metrics_as:
            report.send_metrics(proof, stack, args.metrics_as)
        if args.keep and stack.provider == "local" and proof.verdict.exit_code:
            # The report's lines for curl are of no use once it has ended.
            first = proof.tenants[0]
            live.hold(stack, first, proof.emissions[first], console.file)
    console.print(
        f"\nstack ready in {ready - began:.1f} s, verdict after {decided - began:.1f} s "
        f"and {counted(proof.requests, 'request')}\n{_memory(proof)}report: {page}",
        style="dim",
        soft_wrap=True,
    )
    if not stack.disposable:
        console.print(_left_behind(proof), style="dim", soft_wrap=True)
    if args.keep:
        console.print(f"kept: {stack.name}", style="dim", soft_wrap=True)
    return proof.verdict.exit_code


def _apis(args: argparse.Namespace) -> tuple[ReadApi, ...]:
    """Return the read APIs to ask: those that are named, else all, or a few for many tenants."""
    from stackproof import live
    from stackproof.backends import ESSENTIAL, PROVABLE

    if args.apis:
        return live.read_apis(args.apis)
    return ESSENTIAL if args.synthetic else PROVABLE


def _proven(
    stack: Stack, args: argparse.Namespace, apis: Sequence[ReadApi], console: Console
) -> Proof:
    """Prove a running stack as the options say."""
    from stackproof import isolation, live
    from stackproof.model import EntryPoint
    from stackproof.repo.versions import Versions

    with live.progress_bar(console) as update:
        return isolation.prove(
            stack,
            args.tenants,
            apis=apis,
            deadline_s=args.deadline,
            entry_point=EntryPoint.GATEWAY if args.synthetic else None,
            on_progress=update,
            pins=None if args.targets else Versions.load(Checkout.find()),
        )


def where(args: argparse.Namespace) -> str:
    """Return the name of the stack that the options choose."""
    existing = args.context or args.kubeconfig or args.in_cluster
    known = "gateway" if args.gateway_url else "local"
    return str(args.stack or ("cluster" if existing else known))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _targets(args: argparse.Namespace) -> TargetsStack:
    """Return the deployment of a file; no clone is needed for it."""
    from stackproof.stack.targets import Targets, TargetsStack

    for name in ("stack", "synthetic", "metrics_as", *_ONLY):
        if getattr(args, name):
            raise UsageError(
                "the file says where everything is",
                where=f"--targets {_option(name)}",
                todo="Leave one of them out.",
            )
    return TargetsStack(Targets.load(args.targets))


def _deployment(args: argparse.Namespace, tenants: Sequence[str] | None, console: Console) -> Stack:
    """Return a deployment of this repository's charts, and build what it needs."""
    from stackproof.flux.deployment import Deployment
    from stackproof.stack import providers

    deployment = Deployment.load(Checkout.find()).with_synthetic(args.synthetic)
    provider = where(args)
    check_names("stack", [provider], providers.PROVIDERS, "--stack")
    for name, stacks in _ONLY.items():
        if getattr(args, name) and provider not in stacks:
            raise UsageError(
                f"means nothing on the stack {provider!r}",
                where=_option(name),
                todo=f"Leave it out, or choose --stack {' or '.join(stacks)}.",
            )
    if args.synthetic and provider != "local":
        # Made-up tenants have no credentials in a deployment that others made.
        raise UsageError(
            f"there are no synthetic tenants on the stack {provider!r}",
            where="--synthetic",
            todo="Leave out --stack.",
        )
    options = providers.Options(
        keep=args.keep,
        reuse=args.reuse,
        flux=args.flux,
        context=args.context,
        kubeconfig=args.kubeconfig,
        in_cluster=args.in_cluster,
        gateway_url=args.gateway_url,
        tenants=tenants or deployment.registry.names,
        alloys=not args.synthetic,
        say=lambda text: console.print(text, style="dim", soft_wrap=True),
    )
    stack = providers.make_stack(provider, deployment, options)
    if provider in OURS:
        _check_names(args.metrics_as, tenants, deployment.registry.names)
    providers.prepare(provider, console, alloys=not args.synthetic)
    return stack


def _check_names(
    metrics_as: str | None, tenants: Sequence[str] | None, deployed: Sequence[str]
) -> None:
    """Refuse names that nothing can be proven of before anything is started or sent."""
    from stackproof.isolation import subjects

    subjects(tenants, deployed)
    check_names("tenant", [metrics_as] if metrics_as else [], deployed, "--metrics-as")


def _left_behind(proof: Proof) -> str:
    """Return what of the run stays in a deployment that is not thrown away."""
    if not proof.exports:
        return "left behind: nothing, no export was taken"
    return (
        f"left behind: {counted(proof.exports, 'export')} of synthetic telemetry, each tenant's "
        "own (with attributes that\nbegin with `stackproof`), until the tenant's retention ends; "
        "no backend deletes it sooner"
    )


def _memory(proof: Proof) -> str:
    """Return a line with the most memory that each component had, the biggest first."""
    biggest = sorted(proof.memory.items(), key=lambda each: -each[1])
    told = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in biggest)
    return f"memory at most: {told}\n" if told else ""
