"""Make a kind cluster with the deployment in it, or delete it.

`kind up` leaves it running for `--reuse`; `kind down` deletes it if stackproof made it.
"""

from __future__ import annotations

import argparse

from stackproof.errors import UsageError
from stackproof.repo.checkout import Checkout


def configure(parser: argparse.ArgumentParser) -> None:
    """Add up or down, and how it is installed."""
    parser.add_argument("what", choices=["up", "down"], help="make it, or delete it")
    parser.add_argument(
        "--reuse", action="store_true", help="up: bring the existing cluster up to date"
    )
    parser.add_argument(
        "--flux", action="store_true", help="up: let Flux install it instead of Helm"
    )


def run(args: argparse.Namespace) -> int:
    """Do it, and say how to go on."""
    from stackproof import terminal
    from stackproof.flux.deployment import Deployment
    from stackproof.stack import kind, providers

    checkout = Checkout.find()
    console = terminal.console()
    if args.what == "down":
        if args.reuse or args.flux:
            raise UsageError(
                "only `kind up` has options", where="kind down", todo="Leave them out."
            )
        gone = kind.down(checkout)
        console.print("deleted" if gone else "there is none")
        return 0
    providers.prepare("kind", console)
    stack = kind.KindStack(
        Deployment.load(checkout),
        keep=True,
        reuse=args.reuse,
        flux=args.flux,
        say=lambda text: console.print(text, style="dim", soft_wrap=True),
    )
    with stack:
        standing_in = [each.component for each in stack.choices.values() if each.how == "stand-in"]
    console.print(f"\nall pods are ready after {sum(stack.steps.values()):.0f} s", soft_wrap=True)
    if standing_in:
        console.print(f"stand-ins, for want of an image: {', '.join(sorted(standing_in))}")
    console.print(
        f"\nexport KUBECONFIG={stack.cluster.kubeconfig_path}\n"
        "stackproof prove --stack kind --reuse\nmake test-e2e STACK=kind ARGS=--stackproof-reuse",
        soft_wrap=True,
    )
    return 0
