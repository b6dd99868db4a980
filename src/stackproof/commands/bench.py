"""Measure rendering, the start of the stack, the time to a verdict, and what many tenants cost.

Writes build/bench.json (figures by name, with units in the names; earlier figures stay while the
files are unchanged) and build/bench.html with plots. Use an idle machine: it takes about ten
minutes on two cores.
"""

from __future__ import annotations

import argparse

from stackproof.options import add_names, only_listed
from stackproof.repo.checkout import Checkout


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the names, --list and --record."""
    add_names(parser, "a benchmark")
    parser.add_argument(
        "--record", action="store_true", help="add the figures to docs/bench-history.jsonl"
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print each figure as it comes."""
    from stackproof import bench, terminal
    from stackproof.repo import results
    from stackproof.stack import providers

    checkout = Checkout.find()
    about = {name: (each.__doc__ or "").splitlines()[0] for name, each in bench.BENCHMARKS.items()}
    if only_listed(args, "benchmark", about):
        return 0
    console = terminal.console(args)
    providers.prepare("local", console)
    console.print(bench.about(), style="dim")
    of = results.Provenance.of(checkout)
    folder, history = checkout.root / "build", bench.History.of(checkout)
    for name, measure in bench.BENCHMARKS.items():
        # What the machine is like belongs to every figure.
        if args.names and name not in {*args.names, "machine"}:
            continue
        using = bench.WITH[name]() if name in bench.WITH else ""
        if using:
            console.print(using, style="dim", soft_wrap=True)
        with console.status(f"{name}: {about[name]}"):
            figures = measure(checkout)
        found = bench.write(name, figures, folder, of, using)
        for figure, value in figures.items():
            console.print(f"{figure:48} {value:>12,}")
    known = bench.read(folder)
    target = folder / "bench.html"
    target.write_text(bench.page(known, history.runs(), of), encoding="utf-8")
    if args.record:
        history.record(known)
        console.print(f"recorded in {checkout.show(history.path)}", soft_wrap=True)
    terminal.answer(args, found)
    console.print(f"\n{target}", style="dim", soft_wrap=True)
    return 0
