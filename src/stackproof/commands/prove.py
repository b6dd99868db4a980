"""Prove on a stack that no tenant reads, writes or disturbs another's telemetry.

Writes build/report/isolation.json and build/report/index.html.
Exit code: 0 isolated, 1 leaking, 2 incomplete or could not run.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from stackproof.checkout import Checkout


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
    from stackproof.deployment import Deployment

    checkout = Checkout.find()
    deployment = Deployment.load(checkout)
    console = session.console()
    session.prepare(args.stack, console)
    stack = session.make_stack(args.stack, deployment, keep=args.keep)
    began = time.monotonic()
    with stack:
        ready = time.monotonic()
        proof = session.prove(
            stack,
            console,
            tenants=args.tenants.split(",") if args.tenants else None,
            deadline_s=args.deadline,
        )
        decided = time.monotonic()
    report.show(proof, console)
    page = report.write(proof, args.report or checkout.root / "build" / "report")
    console.print(
        f"\nstack ready in {ready - began:.1f} s, verdict after {decided - began:.1f} s "
        f"and {proof.requests} requests\nreport: {page}",
        style="dim",
        soft_wrap=True,
    )
    if args.keep:
        console.print(f"kept: {stack.name}", style="dim", soft_wrap=True)
    return proof.verdict.exit_code
