"""Measure rendering, the unit suite, the start of the stack and the time to a verdict.

Writes build/bench.json: figures by name, with units in the names. What is not measured again stays.
"""

from __future__ import annotations

import argparse

from stackproof.checkout import Checkout


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the names."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="a benchmark (default: all)")


def run(args: argparse.Namespace) -> int:
    """Measure and print each figure as it comes."""
    from stackproof import bench, session
    from stackproof.errors import StackproofError

    checkout = Checkout.find()
    unknown = set(args.names) - bench.BENCHMARKS.keys()
    if unknown:
        raise StackproofError(
            f"no benchmark is called {', '.join(sorted(unknown))}",
            todo=f"There are: {', '.join(bench.BENCHMARKS)}.",
        )
    console = session.console()
    session.prepare("local", console)
    console.print(bench.about(), style="dim")
    target = None
    for name, measure in bench.BENCHMARKS.items():
        if args.names and name not in args.names:
            continue
        with console.status(f"{name}: {(measure.__doc__ or '').splitlines()[0]}"):
            figures = measure(checkout)
        target = bench.write(figures, checkout.root / "build")
        for figure, value in figures.items():
            console.print(f"{figure:40} {value:>12,}")
    console.print(f"\n{target}", style="dim", soft_wrap=True)
    return 0
