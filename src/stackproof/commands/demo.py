"""Start the whole stack from the charts on this machine, and prove that its tenants are isolated.

The same as `prove`, explained step by step.
"""

from __future__ import annotations

import argparse

from . import prove

configure = prove.configure


def run(args: argparse.Namespace) -> int:
    """Say what is about to happen, then prove."""
    from stackproof import terminal
    from stackproof.repo.checkout import Checkout
    from stackproof.repo.tenants import load_registry

    if args.targets or prove.where(args) not in prove.OURS:  # nothing is started there
        return prove.run(args)
    names = load_registry(Checkout.find()).names
    terminal.console(args).print(
        "Mimir, Loki, Tempo, the gateway and one Alloy for each tenant start from what the charts\n"
        f"render. {', '.join(names)} send traces, metrics and logs; then each reads everything\n"
        "it can, and nothing of the others may be in any answer.\n",
        style="dim",
        soft_wrap=True,
    )
    return prove.run(args)
