"""Run the stack on this machine until Ctrl-C; show addresses, a password, and a query of each kind.

Every tenant first sends a trace, a metric and a log line, so that the queries show something.
"""

from __future__ import annotations

import argparse

from stackproof.options import check_names, word
from stackproof.repo.checkout import Checkout


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--tenant",
        type=word,
        metavar="NAME",
        help="show the queries of this tenant (default: the first)",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave configurations, logs and data behind"
    )


def run(args: argparse.Namespace) -> int:
    """Start it, say how to use it, and wait."""
    from stackproof import live, terminal
    from stackproof.flux.deployment import Deployment
    from stackproof.stack import providers
    from stackproof.stack.local import LocalStack

    deployment = Deployment.load(Checkout.find())
    given = [args.tenant] if args.tenant else []
    check_names("tenant", given, deployment.registry.names, "--tenant")
    providers.prepare("local", terminal.console())
    with LocalStack(deployment, keep=args.keep) as stack:
        sent = live.send_samples(stack)
        tenant = args.tenant or stack.tenants[0]
        live.hold(stack, tenant, sent[tenant])
    if args.keep:
        print(f"kept: {stack.name}")
    return 0
