"""Say whether one node is enough for a load, and what the distributed charts would need.

It multiplies out rules of thumb, whose sources it names below the tables. Exit code: 0 one node may
be enough, 1 it is not.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from stackproof.errors import StackproofError
from stackproof.options import add_json, count, number
from stackproof.repo.checkout import Checkout
from stackproof.wording import counted

if TYPE_CHECKING:
    from stackproof.backends.capacity import Given, Load, Need


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the load and the node."""
    # A tenant may send no logs or no traces, and nobody may ask: 0 is a figure there.
    none = number(at_least=0)
    parser.add_argument("--tenants", type=count(), required=True, metavar="N", help="their number")
    for option, kind, default, metavar, text in (
        ("--series", number(), 10_000, "N", "active series of a tenant"),
        ("--logs", none, 1.0, "GB", "logs of a tenant per day"),
        ("--traces", none, 1.0, "GB", "traces of a tenant per day"),
        ("--interval", number(), 10.0, "S", "time between two samples of a series"),
        ("--queries", none, 2.0, "PER_S", "queries of all users per second"),
        ("--retention", number(), 31.0, "DAYS", "how long telemetry is kept"),
        ("--node-cores", number(), 8.0, "N", "cores of the node that are free for the backends"),
        ("--node-memory", number(), 28.0, "GB", "memory of the node that is free for them"),
    ):
        parser.add_argument(
            option,
            type=kind,
            default=default,
            metavar=metavar,
            help=f"{text} (default: %(default)s)",
        )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the tables and the verdict."""
    from stackproof import terminal
    from stackproof.backends import capacity

    load = capacity.Load(
        tenants=args.tenants,
        series=args.series,
        logs_gb_per_day=args.logs,
        traces_gb_per_day=args.traces,
        interval_s=args.interval,
        queries_per_s=args.queries,
        retention_days=args.retention,
    )
    console = terminal.console(args, soft_wrap=True)
    console.print(f"{_shown(load)}\n")
    needs = capacity.one_node(load)
    console.print(_table("One process each, on one node", needs))
    given = _given()
    shortages = [
        f"{need.backend} has {shortage}"
        for need in (needs if given else ())
        for shortage in capacity.shortages(need, given[need.backend])
    ]
    for shortage in shortages:
        console.print(f"  as configured now, {shortage}")
    reasons = capacity.too_big_for_one_node(load, args.node_cores, args.node_memory)
    cluster = capacity.distributed(load)
    console.print()
    if reasons:
        console.print(Text("One node is too small:", "bold"), "; ".join(reasons))
    else:
        console.print(
            Text("One node", "bold"),
            f"of {counted(args.node_cores, 'core', figure='.3g')} and {args.node_memory:.3g} GB",
            Text("may be enough.", "bold"),
        )
    console.print()
    console.print(_table("The distributed charts (observability/scale-out)", cluster))
    console.print("\nSources: " + ", ".join(dict.fromkeys(s for n in needs for s in n.sources)))
    console.print("They call it a rough idea, no more: measure with your own load.")
    answer = {
        "load": asdict(load),
        "one_node": [asdict(need) for need in needs],
        "too_small": list(reasons),
        "shortages": shortages,
        "distributed": [asdict(need) for need in cluster],
    }
    terminal.answer(args, answer)
    return 1 if reasons else 0


def _shown(load: Load) -> str:
    """Return a load in a line."""
    return (
        f"{load.all_series:,.0f} active series, "
        f"{counted(load.samples_per_s, 'sample/s', 'samples/s', ',.0f')}, "
        f"{load.logs:,.3g} GB of logs and {load.traces:,.3g} GB of traces a day, "
        f"{counted(load.queries_per_s, 'query/s', 'queries/s', '.3g')}, "
        f"kept for {counted(load.retention_days, 'day', figure='.3g')}"
    )


def _table(title: str, needs: tuple[Need, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("component")
    for column in ("replicas", "cores", "memory GB", "disk GB"):
        table.add_column(column, justify="right")
    for need in needs:
        name = need.backend if need.component == "all" else f"{need.backend} {need.component}"
        figures = (_range(need.cores), _range(need.memory_gb), _range(need.disk_gb))
        table.add_row(name, str(need.replicas), *figures)
    return table


def _range(figures: tuple[float, float]) -> str:
    low, high = (f"{figure:,.3g}" if figure < 1000 else f"{figure:,.0f}" for figure in figures)
    return low if low == high else f"{low} to {high}"


def _given() -> dict[str, Given]:
    """Return what each backend has as the repository here deploys it; nothing where none is."""
    try:
        checkout = Checkout.find()
    except StackproofError:
        return {}
    from stackproof.backends.capacity import Given
    from stackproof.flux.deployment import Deployment
    from stackproof.helm.manifests import amount

    release = Deployment.load(checkout).lgtm()
    found = {}
    for backend in ("mimir", "loki", "tempo"):
        spec = release.get("StatefulSet", backend)["spec"]
        limits = spec["template"]["spec"]["containers"][0]["resources"]["limits"]
        disk = spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
        found[backend] = Given(
            cores=amount(limits["cpu"]),
            memory_gb=amount(limits["memory"]) / 1e9,
            disk_gb=amount(disk) / 1e9,
        )
    return found
