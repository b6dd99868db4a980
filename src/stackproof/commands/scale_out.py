"""Print all limits as values of the official distributed chart of one backend.

They are those of charts/lgtm, and each tenant's of observability/tenants.yaml.
observability/scale-out/README.md says what to do with them.
"""

from __future__ import annotations

import argparse
import sys

from stackproof.repo.checkout import Checkout


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the backend."""
    parser.add_argument("backend", choices=("mimir", "loki", "tempo"), help="whose limits")


def run(args: argparse.Namespace) -> int:
    """Print a values file."""
    import yaml

    from stackproof.checks.scale_out import limit_values
    from stackproof.flux.deployment import Deployment

    values = limit_values(Deployment.load(Checkout.find()), args.backend)
    sys.stdout.write(yaml.safe_dump(values, sort_keys=False))
    return 0
