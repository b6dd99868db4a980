"""Change charts, values and Flux files, one place at a time, and show what the checks miss.

Writes build/report/mutants.json; of a smaller choice, into build/report/partial. Exit code: 0 if at
least 95 % are noticed, charts/mutants-allowed.yaml explains each survivor and nothing else, and no
check crashes; 1 otherwise. A check that fails on the unchanged chart does not count.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from stackproof.errors import UsageError
from stackproof.options import add_json, add_report, chart, count, refuse_beside, word
from stackproof.repo.checkout import Checkout
from stackproof.wording import counted, percent

if TYPE_CHECKING:
    from rich.console import Console

    from stackproof.mutants import Mutant, Summary

_LEAST = 0.95
_SAMPLE = 1300
_BAD = "bold red"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add what is mutated, and how much of it."""
    parser.add_argument(
        "path", nargs="?", type=chart, metavar="PATH", help="a chart (default: this repository)"
    )
    parser.add_argument(
        "--since", type=word, metavar="REV", help="only lines changed since a revision"
    )
    parser.add_argument(
        "--only", type=word, metavar="TEXT", help="only files whose path contains it"
    )
    parser.add_argument(
        "--sample", type=count(), metavar="N", help=f"at most N, by the seed (default: {_SAMPLE})"
    )
    parser.add_argument("--all", action="store_true", help="every mutant: several thousand")
    parser.add_argument(
        "--seed", type=count(at_least=0), metavar="N", help="of the sample (default: 0)"
    )
    parser.add_argument("--jobs", type=count(), metavar="N", help="processes (default: cores)")
    add_report(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Judge the mutants, show the survivors, write the report."""
    from rich.progress import Progress

    from stackproof import mutants, terminal
    from stackproof.mutants.run import generate
    from stackproof.repo import results
    from stackproof.stack import providers
    from stackproof.toolchain import programs

    refuse_beside(args, "--all", ["--sample", "--seed"], "with every mutant there is no sample")
    root = args.path or Checkout.find().root
    every = generate(root)
    chosen = _chosen(args, every, root)
    # What is explained is judged each time: an explanation of what is noticed by now must go.
    whole = not (args.since or args.only)
    explained = mutants.allowed(root)
    drawn = set(chosen)
    others = [m for m in every if whole and m.id in explained and m not in drawn]
    console = terminal.console(args)
    if args.path:
        of = results.Provenance.of_files(root)
        programs.locate("render", console=console)
    else:
        of = results.Provenance.of(Checkout.find())
        providers.prepare("local", console)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("mutants", total=len(chosen) + len(others))
        summary = mutants.run(
            root, chosen, others, jobs=args.jobs, on_result=lambda _: bar.advance(task)
        )
    stale = summary.stale if whole else ()
    target = results.write(
        args.report or Checkout.report_folder(),
        "mutants",
        {"of": len(every), **summary.record()},
        of,
        whole=whole and not args.path and (args.all or _most(args) >= _SAMPLE),
    )
    terminal.answer(args, target)
    _show(console, summary, stale)
    console.print(str(target), soft_wrap=True)
    enough = summary.share is None or summary.share >= _LEAST
    return 0 if enough and not (summary.unexplained or summary.crashed or stale) else 1


def _chosen(args: argparse.Namespace, every: Sequence[Mutant], root: Path) -> list[Mutant]:
    """Return the mutants that the options choose."""
    from stackproof import mutants

    chosen = [one for one in every if not args.only or args.only in one.file]
    if not chosen:
        raise UsageError(
            f"no file that can be changed has {args.only!r} in its path"
            if args.only
            else "no line of it can be changed",
            where=str(root),
        )
    if args.since:
        chosen = mutants.since(chosen, root, args.since)
    return chosen if args.all else mutants.sample(chosen, _most(args), args.seed or 0)


def _most(args: argparse.Namespace) -> int:
    return int(args.sample or _SAMPLE)


def _show(console: Console, summary: Summary, stale: Sequence[str]) -> None:
    """Show what was missed, and the counts."""
    from stackproof.mutants import MutantFate

    for survivor in summary.unexplained:
        console.print(Text("✘ SURVIVED", _BAD), f"in {', '.join(survivor.judgement.seen_in)}")
        console.print(survivor.mutant.diff(), soft_wrap=True)
    for crash in summary.crashed:
        console.print(Text("✘ CRASHED", _BAD), f"{crash.judgement.by}: {crash.judgement.message}")
        console.print(crash.mutant.diff(), soft_wrap=True)
    for name in stale:
        console.print(Text("✘ EXPLAINED", _BAD), f"and noticed, or gone: {name}", soft_wrap=True)
    counts = ", ".join(f"{summary.count(fate)} {fate}" for fate in MutantFate)
    for name, cases in summary.deaf.items():
        console.print(
            Text(name, "yellow"),
            f"fails without a mutant in {counted(cases, 'scenario')}: not asked there",
        )
    share = percent(summary.count(MutantFate.KILLED), summary.counted)
    console.print(
        f"\n{counted(len(summary.results), 'mutant')}: {counts}; {share} of those that are not "
        f"equivalent noticed, {counted(len(summary.unexplained), 'survivor')} and "
        f"{counted(len(stale), 'explanation')} too many",
        soft_wrap=True,
    )
