"""Prove that tenants stay apart, and nothing is lost, while a change rolls out.

The stack starts as a revision renders it; then the files here take over, as a cluster would roll
them (or, with --stack kind, as Flux does), while every tenant sends and reads, and intruders try.
Writes build/report/upgrade.json, and the page of the proof that follows the rollout.
Exit code: 0 isolated (or nothing would roll), 1 leaking or lost, 2 incomplete.
"""

from __future__ import annotations

import argparse
import subprocess
from functools import partial
from typing import TYPE_CHECKING

from stackproof.errors import UsageError
from stackproof.options import add_deadline, add_json, add_report, check_names, word
from stackproof.repo.checkout import Checkout

if TYPE_CHECKING:
    from stackproof.stack.rollout import Rollable

#: Where something can roll.
STACKS = ("local", "kind")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--from",
        dest="since",
        type=word,
        metavar="REV",
        help="the revision that runs first (default: where this branch left main; on main, the "
        "commit before)",
    )
    parser.add_argument(
        "--stack",
        type=word,
        default="local",
        help="where it rolls: local (default), or kind: a cluster of its own, in which Flux "
        "fetches the revision and then a commit with the files here",
    )
    parser.add_argument(
        "--program",
        action="append",
        type=word,
        default=[],
        metavar="NAME=PATH",
        help="another binary for the new side, on the data of the old one: mimir, loki, tempo, "
        "alloy or caddy",
    )
    add_deadline(parser)
    parser.add_argument(
        "--keep", action="store_true", help="leave configurations, logs and data behind"
    )
    add_report(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Roll, prove, show and write the report; the exit code is the verdict's."""
    from stackproof import report, terminal, upgrade
    from stackproof.flux.deployment import Deployment
    from stackproof.repo import results
    from stackproof.repo.versions import Versions
    from stackproof.stack import providers
    from stackproof.stack.rolling import RollingStack
    from stackproof.upgrade import UpgradeVerdict, sources

    checkout = Checkout.find()
    console = terminal.console(args)
    say = partial(console.print, style="dim", soft_wrap=True)
    since = args.since or _left_main(checkout)
    new = sources.chosen(args.program)
    _check_stack(args)
    of = results.Provenance.of(checkout)
    folder = args.report or Checkout.report_folder()
    with sources.earlier(checkout, since) as before:
        after = Deployment.load(checkout)
        providers.prepare(args.stack, console)
        old, now = sources.pinned(before.checkout), {**sources.pinned(checkout), **new}
        if sources.same(before, after) and old == now:
            terminal.answer(args, report.write_unchanged(since, folder, of))
            console.print(f"{UpgradeVerdict.UNCHANGED}: {since} renders the same, nothing rolls")
            return UpgradeVerdict.UNCHANGED.exit_code
        stack: Rollable
        if args.stack == "local":
            stack = RollingStack(before, binaries=old, then=now, keep=args.keep)
        else:
            from stackproof.stack.kind import KindStack

            stack = KindStack(before, flux=True, keep=args.keep, say=say)
        with stack:
            found = upgrade.prove(
                stack,
                after,
                since=since,
                deadline_s=args.deadline,
                pins=Versions.load(checkout),
                say=lambda text: say(f"{text} …"),
            )
    report.show_upgrade(found, console)
    target = report.write_upgrade(found, folder, of)
    terminal.answer(args, target)
    if found.after:
        target = report.write(found.after, folder, of)
    console.print(f"\nreport: {target}", style="dim", soft_wrap=True)
    if args.keep:
        console.print(f"kept: {stack.name}", style="dim", soft_wrap=True)
    return found.verdict.exit_code


def _check_stack(args: argparse.Namespace) -> None:
    check_names("stack that can roll", [args.stack], STACKS, "--stack")
    if args.program and args.stack != "local":
        todo = "Change the image in the charts' values."
        raise UsageError("a cluster runs images", where="--program", todo=todo)


def _left_main(checkout: Checkout) -> str:
    """Return the commit at which this branch left main; on main, the one before."""
    for main in ("origin/main", "main"):
        if base := _git(checkout, "merge-base", "HEAD", main):
            return base if base != _git(checkout, "rev-parse", "HEAD") else "HEAD~1"
    raise UsageError("there is no branch main to compare with", where="--from", todo="Name one.")


def _git(checkout: Checkout, *words: str) -> str:
    """Return what git prints; nothing where it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout.root), *words], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
