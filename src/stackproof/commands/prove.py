"""Prove on a stack that no tenant reads, writes or disturbs another's telemetry.

Writes build/report/isolation.json and build/report/index.html.
Exit code: 0 isolated, 1 leaking, 2 incomplete or could not run.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stackproof.checkout import Checkout
from stackproof.errors import StackproofError

if TYPE_CHECKING:
    from stackproof.isolation import Proof


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is proven, and where."""
    parser.add_argument("--stack", default="local", help="where it runs (default: local)")
    parser.add_argument("--tenants", metavar="A,B", help="only these (default: all)")
    parser.add_argument(
        "--deadline",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long each piece of telemetry may take to be seen (default: 30)",
    )
    parser.add_argument(
        "--apis", metavar="A,B", help="only through these read APIs (default: all; see --synthetic)"
    )
    parser.add_argument(
        "--synthetic",
        type=int,
        default=0,
        metavar="N",
        help="prove N made-up tenants besides the real ones: no Alloys, every tenant writes to the "
        "gateway; through one read API of each backend unless --apis says otherwise",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave configurations, logs and data behind"
    )
    parser.add_argument(
        "--report",
        type=Path,
        default=None,
        metavar="DIR",
        help="where the report goes (default: build/report)",
    )


def run(args: argparse.Namespace) -> int:
    """Start the stack, prove, show and write the report; the exit code is the verdict's."""
    from stackproof import report, session
    from stackproof.backends import ESSENTIAL, PROVABLE
    from stackproof.deployment import Deployment
    from stackproof.isolation import Door

    checkout = Checkout.find()
    many = bool(args.synthetic)
    apis = session.read_apis(args.apis.split(",")) if args.apis else ESSENTIAL if many else PROVABLE
    deployment = Deployment.load(checkout).with_synthetic(args.synthetic)
    if many:
        _refuse_elsewhere(args.stack)
    console = session.console()
    session.prepare(args.stack, console, alloys=not many)
    options = {"alloys": False} if many else {}
    stack = session.make_stack(args.stack, deployment, keep=args.keep, **options)
    began = time.monotonic()
    with stack:
        ready = time.monotonic()
        proof = session.prove(
            stack,
            console,
            tenants=args.tenants.split(",") if args.tenants else None,
            apis=apis,
            deadline_s=args.deadline,
            door=Door.GATEWAY if many else Door.ALLOY_GRPC,
        )
        decided = time.monotonic()
    report.show(proof, console)
    page = report.write(proof, args.report or checkout.root / "build" / "report")
    console.print(
        f"\nstack ready in {ready - began:.1f} s, verdict after {decided - began:.1f} s "
        f"and {proof.requests} requests\n{_memory(proof)}report: {page}",
        style="dim",
        soft_wrap=True,
    )
    if args.keep:
        console.print(f"kept: {stack.name}", style="dim", soft_wrap=True)
    return proof.verdict.exit_code


def _refuse_elsewhere(stack: str) -> None:
    """Made-up tenants have no credentials in a deployment that others made."""
    if stack != "local":
        raise StackproofError(
            f"there are no synthetic tenants on the stack {stack!r}",
            where="--synthetic",
            todo="Leave out --stack.",
        )


def _memory(proof: Proof) -> str:
    """Say the most memory that each component had, the biggest first."""
    biggest = sorted(proof.memory.items(), key=lambda each: -each[1])
    told = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in biggest)
    return f"memory at most: {told}\n" if told else ""
