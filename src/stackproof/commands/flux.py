"""Build the Flux tree, check it, or show what a change of it does to the cluster.

Nothing is asked of a network or a cluster. Exit code of `check`: 0 all holds, 1 something does not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from stackproof.checkout import Checkout

if TYPE_CHECKING:
    from stackproof.flux.tree import Tree


def configure(parser: argparse.ArgumentParser) -> None:
    """Add `build`, `check` and `diff`."""
    parser.add_argument(
        "--cluster", default="production", metavar="NAME", help="folder of flux/clusters"
    )
    does = parser.add_subparsers(title="what to do", metavar="build|check|diff", required=True)
    built = does.add_parser("build", help="print the tree in the order in which it is applied")
    built.add_argument("--yaml", action="store_true", help="print the objects, secrets masked")
    built.set_defaults(do=_build)
    check = does.add_parser("check", help="say what is wrong with the tree")
    check.set_defaults(do=_check)
    compare = does.add_parser("diff", help="show what the files here would change since a revision")
    compare.add_argument("revision", metavar="REV", help="a commit, branch or tag")
    compare.add_argument(
        "--markdown", type=Path, metavar="FILE", help="also write it for a pull request"
    )
    compare.set_defaults(do=_diff)


def run(args: argparse.Namespace) -> int:
    """Do what was asked."""
    code: int = args.do(args, Checkout.find(), Console(soft_wrap=True, highlight=False))
    return code


def _build(args: argparse.Namespace, checkout: Checkout, console: Console) -> int:
    from stackproof.flux.tree import build

    tree = build(checkout, args.cluster)
    if args.yaml:
        _print_yaml(tree)
        return 0
    for number, step in enumerate(tree.steps):
        after = f"  [dim]after {', '.join(step.depends_on)}[/]" if step.depends_on else ""
        console.print(f"[bold]{number}. {step.name}[/]  {checkout.show(step.folder)}{after}")
        for problem in step.problems:
            console.print("   ", f"[red]{problem}[/]")
        for manifest in step.objects:
            where = f" in {manifest.namespace}" if manifest.namespace else ""
            console.print(f"     {manifest.ref}{where}")
            release = tree.releases.get((manifest.namespace or "", manifest.name))
            if manifest.kind == "HelmRelease" and release:
                for made in release.rendered or ():
                    console.print(f"       [dim]{made.ref}[/]")
    return 0


def _print_yaml(tree: Tree) -> None:
    from stackproof.flux.diff import as_yaml

    for applied in tree.applied:
        by = f", {applied.release.manifest.ref}" if applied.release else ""
        sys.stdout.write(f"---\n# step {applied.step.name}{by}: {applied.source}\n")
        sys.stdout.write(as_yaml(applied.manifest))


def _check(args: argparse.Namespace, checkout: Checkout, console: Console) -> int:
    from stackproof.flux.checks import FLUX, problems

    found = list(problems(checkout, args.cluster))
    for name, message in found:
        console.print(f"[bold red]{name}[/]", message, markup=True)
    console.print(f"{len(FLUX.names)} checks, {len(found)} problems")
    return 1 if found else 0


def _diff(args: argparse.Namespace, checkout: Checkout, console: Console) -> int:
    from stackproof.flux import diff as comparison
    from stackproof.flux.tree import build

    with comparison.revision(checkout, args.revision) as before:
        if not (before.flux / "clusters" / args.cluster).is_dir():
            console.print(f"{args.revision} has no flux/clusters/{args.cluster}: all of it is new")
            (before.flux / "clusters" / args.cluster).mkdir(parents=True)
        old, new = build(before, args.cluster), build(checkout, args.cluster)
        entries, data = comparison.diff(old, new), comparison.lost(old, new)
    styles = {"added": "green", "changed": "yellow", "removed": "red"}
    for entry in entries:
        console.print(f"[bold {styles[entry.change]}]{entry.change}[/] {entry.title}")
        for line in entry.lines:
            style = {"+": "green", "-": "red"}.get(line[:1], "dim")
            console.print(f"  {line}", style=style, markup=False)
    console.print(f"since {args.revision}: {comparison.summary(entries)}")
    for loss in data:
        console.print(f"[bold red]data[/] {loss}")
    for warning in comparison.warnings(entries):
        console.print(f"[bold red]refused[/] {warning}")
    if args.markdown:
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        text = comparison.as_markdown(entries, args.revision, data=data)
        args.markdown.write_text(text, encoding="utf-8")
    return 0
