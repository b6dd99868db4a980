"""Check observability/tenants.yaml and list its tenants."""

from __future__ import annotations

import argparse

from rich.table import Table

from stackproof.options import add_json
from stackproof.repo.checkout import Checkout


def configure(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print a table, or fail with every problem of the file."""
    from stackproof import terminal
    from stackproof.repo.tenants import format_duration, load_registry

    registry = load_registry(Checkout.find())
    table = Table(box=None, pad_edge=False)
    for title in ("tenant", "namespace", "secret prefix", "retention", "limits"):
        table.add_column(title, overflow="fold")
    for tenant in registry:
        limits = ", ".join(
            f"{signal} {name} {value:,}"
            for signal, figures in tenant.limits.items()
            for name, value in figures.items()
        )
        retention = format_duration(tenant.retention) if tenant.retention else "default"
        table.add_row(
            tenant.name, tenant.namespace, tenant.secret_prefix, retention, limits or "default"
        )
    terminal.console(args).print(table)
    terminal.answer(args, registry.values())
    return 0
