"""Check what any chart renders against the invariants, which hold whatever the values.

The chart is rendered with each of its scenarios (ci/*.yaml, as for chart-testing), with its
defaults if it has none, or with the given values.

Exit code: 0 all hold, 1 some do not, 2 a render failed, so that some could not be checked.
"""

from __future__ import annotations

import argparse
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackproof.errors import ExitCode
from stackproof.options import (
    add_json,
    add_junit,
    chart,
    check_charts,
    check_names,
    names,
    namespace_name,
)
from stackproof.wording import counted

if TYPE_CHECKING:
    from stackproof.checks.charts import Problem
    from stackproof.junit import Case


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the charts and how they are rendered."""
    parser.add_argument("charts", nargs="+", type=chart, metavar="CHART", help="a chart's folder")
    parser.add_argument(
        "--values",
        action="append",
        type=Path,
        metavar="FILE",
        help="render with these, one over the other, instead of the chart's scenarios",
    )
    parser.add_argument(
        "--namespace",
        type=namespace_name,
        default="default",
        metavar="NAME",
        help="render for this namespace (default: %(default)s)",
    )
    parser.add_argument(
        "--without", type=names, default=(), metavar="A,B", help="leave these invariants out"
    )
    add_json(parser)
    add_junit(parser)


def run(args: argparse.Namespace) -> int:
    """Print each problem once, and in how many renders it is."""
    from rich.console import Console

    from stackproof import terminal
    from stackproof.checks import charts
    from stackproof.checks.invariants import INVARIANTS
    from stackproof.repo import results
    from stackproof.toolchain import programs

    check_charts(args.charts)
    check_names("invariant", args.without, INVARIANTS.names, "--without")
    console = terminal.console(args, soft_wrap=True)
    programs.locate("render", console=Console(stderr=True))
    all_found: set[str] = set()
    answer: dict[str, Any] = {}
    junit: list[Case] = []
    for folder in args.charts:
        problems: dict[Problem, list[str]] = {}
        given = [(" ".join(path.name for path in args.values), args.values)] if args.values else ()
        cases = list(given or charts.cases(folder))
        for case, values in cases:
            for each in charts.problems(folder, values, args.namespace, args.without):
                problems.setdefault(each, []).append(case)
        for each, where in problems.items():
            style = "dim" if each.rule == charts.NOTE else "bold red"
            console.print(each.rule, style=style, end=" ")
            console.print(each.text, end=" ")
            console.print(f"({', '.join(where[:3])}{' …' if where[3:] else ''})", style="dim")
        found = [each.rule for each in problems if each.rule != charts.NOTE]
        all_found.update(found)
        answer[folder.name] = {
            "renders": [name for name, _ in cases],
            "problems": [{**asdict(each), "renders": where} for each, where in problems.items()],
        }
        junit += _cases(folder.name, args.without, problems)
        console.print(
            f"{folder.name}: {counted(len(cases), 'render')}, "
            f"{counted(len(INVARIANTS.names) - len(args.without), 'invariant')}, "
            f"{counted(len(found), 'problem')}"
        )
    of = results.Provenance.of_files(*args.charts)
    terminal.answer(args, results.content({"charts": answer}, of), junit)
    if charts.RENDER in all_found:
        return ExitCode.UNDECIDED
    return ExitCode.BAD if all_found else ExitCode.GOOD


def _cases(
    chart: str, without: Container[str], problems: Mapping[Problem, Sequence[str]]
) -> Iterator[Case]:
    """Yield a case for each invariant, and one for that the chart renders."""
    from stackproof.checks.charts import RENDER
    from stackproof.checks.invariants import INVARIANTS
    from stackproof.junit import Case

    for rule in (RENDER, *(name for name in INVARIANTS.names if name not in without)):
        told = [f"{p.text} ({', '.join(where)})" for p, where in problems.items() if p.rule == rule]
        yield Case(f"lint.{chart}", rule, *(((), told) if rule == RENDER else (told,)))
