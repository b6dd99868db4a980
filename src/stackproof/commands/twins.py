"""Put every known fault back, one at a time, and show what catches it.

Writes build/report/twins.json; with some twins only, into build/report/partial. Exit code: 0 all
are caught, 1 some are not.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.text import Text

from stackproof.options import add_junit, add_names, add_report, only_listed, refuse_beside
from stackproof.repo.checkout import Checkout
from stackproof.wording import counted

if TYPE_CHECKING:
    from stackproof.twins.base import TwinOutcome


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the names, --list and --docs."""
    add_names(parser, "a twin")
    add_junit(parser)
    add_report(parser)
    parser.add_argument(
        "--docs", action="store_true", help="only write docs/twins.md from the registry"
    )


def run(args: argparse.Namespace) -> int:
    """Run the twins and print the table."""
    from stackproof import terminal, twins
    from stackproof.junit import Case
    from stackproof.repo import results
    from stackproof.stack import providers

    others = ("NAME", "--list", "--json", "--junitxml", "--report")
    refuse_beside(args, "--docs", others, "the page is all that there is")
    checkout = Checkout.find()
    if args.docs:
        page = checkout.root / "docs" / "twins.md"
        page.write_text(twins.markdown([*twins.TWINS, *twins.CLUSTER]), encoding="utf-8")
        return 0
    if only_listed(args, "twin", {twin.name: twin.fault for twin in twins.TWINS}):
        return 0
    console = terminal.console(args)
    of = results.Provenance.of(checkout)
    providers.prepare("local", console)
    records, cases = [], []
    for twin in twins.TWINS:
        if args.names and twin.name not in args.names:
            continue
        with console.status(f"{twin.name}: {twin.fault}"):
            outcome = twins.run(twin, checkout)
        records.append(record := outcome.record())
        failures = [] if outcome.caught else [f"{twin.fault}: {record['reason']}"]
        cases.append(Case(f"twins.{twin.layer}", twin.name, failures, (), outcome.seconds))
        console.print(_line(outcome), soft_wrap=True)
    target = results.write(
        args.report or Checkout.report_folder(),
        "twins",
        {"of": len(twins.TWINS), "twins": records},
        of,
        whole=not args.names,
    )
    terminal.answer(args, target, cases)
    uncaught = [record["name"] for record in records if record["caught_by"] is None]
    console.print(
        f"\n{counted(len(records), 'fault')}, {len(records) - len(uncaught)} caught, "
        f"{len(uncaught)} uncaught\n{target}",
        soft_wrap=True,
    )
    return 1 if uncaught else 0


def _line(outcome: TwinOutcome) -> Text:
    """Return what became of a twin, with its fault in a second line."""
    twin = outcome.twin
    sign, style = ("✔", "green") if outcome.caught else ("✘ UNCAUGHT", "bold red")
    return Text.assemble(
        (sign, style),
        f" {twin.name}  ",
        (f"{twin.layer}, {twin.caught_by}, {outcome.seconds:.1f} s", "dim"),
        f"\n  {twin.fault}",
    )
