"""Show which branches of the chart templates the scenarios and permutations render.

Writes build/report/coverage.json and build/report/coverage.html. Exit code: 0 at least 98 % of each
chart's branches, 1 less.
"""

from __future__ import annotations

import argparse

from rich.text import Text

from stackproof.errors import writing
from stackproof.options import add_json, add_report, chart, check_charts
from stackproof.repo.checkout import Checkout
from stackproof.wording import counted, percent


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the charts and where the report goes."""
    parser.add_argument(
        "charts",
        nargs="*",
        type=chart,
        metavar="CHART",
        help="a chart's folder (default: charts/*)",
    )
    add_report(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print a line for each chart and for each branch that was missed."""
    from stackproof import terminal
    from stackproof.repo import results
    from stackproof.values import coverage
    from stackproof.values.coverage.page import page

    check_charts(args.charts)
    if args.charts:
        charts, of = args.charts, results.Provenance.of_files(*args.charts)
    else:
        checkout = Checkout.find()
        charts = sorted(file.parent for file in checkout.charts.glob("*/Chart.yaml"))
        of = results.Provenance.of(checkout)
    console = terminal.console(args)
    folder = args.report or Checkout.report_folder()
    measured = []
    for each in charts:
        with console.status(f"rendering {each.name}"):
            one = coverage.measure(each)
        measured.append(one)
        good = one.share >= coverage.THRESHOLD
        console.print(
            Text.assemble(
                ("✔", "green") if good else ("✘", "bold red"),
                f" {one.name}: {one.covered} of "
                f"{counted(len(one.branches), 'branch', 'branches')}, "
                f"{percent(one.covered, len(one.branches))}  ",
                (
                    f"{counted(one.renders, 'render')}, "
                    f"{counted(len(one.left_out), 'branch', 'branches')} cannot happen",
                    "dim",
                ),
            ),
            soft_wrap=True,
        )
        for branch in one.missed:
            console.print(f"    {branch.template}:{branch.line}  {branch.text}", soft_wrap=True)
    target = results.write(folder, "coverage", coverage.record(measured), of, whole=not args.charts)
    shown = target.with_suffix(".html")
    with writing(shown.parent):
        shown.write_text(page(measured), encoding="utf-8")
    terminal.answer(args, target)
    console.print(f"\nreport: {shown}", style="dim", soft_wrap=True)
    return 0 if all(one.share >= coverage.THRESHOLD for one in measured) else 1
