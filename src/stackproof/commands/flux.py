"""Build the Flux tree, check it, or show what a change of it does to the cluster.

Nothing is asked of a network or a cluster.

Exit code: 0 fine; 1 a finding (`check`: something does not hold; `diff`: what --fail-on names); 2
not all could be told: a step or a release, of either side of the diff, does not build.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from stackproof.errors import ExitCode, UsageError, writing
from stackproof.options import add_command, add_json, add_junit, names, new_file, word
from stackproof.repo.checkout import Checkout
from stackproof.wording import counted

if TYPE_CHECKING:
    from stackproof.flux.diff import ObjectDiff
    from stackproof.flux.tree import Tree


_BUILD_TEXT = """\
Print the Flux tree, in the order in which it is applied.

Exit code: 0 all builds, 2 a step or a release does not."""

_CHECK_TEXT = """\
Check the Flux tree, built as the controllers build it.

Exit code: 0 all checks hold, 1 some do not; with a PATH 2 if the tree does not build."""

_DIFF_TEXT = """\
Show what the files here change in the cluster, compared with a revision.

Exit code: 0 nothing that --fail-on names; 1 something that it names; 2 a step or a release, before
or now, does not build."""

#: What a diff may find, besides the changes.
FINDINGS = ("refused", "data-loss")


def _findings(text: str) -> tuple[str, ...]:
    found = names(text)
    unknown = sorted(set(found) - {*FINDINGS, "none"})
    if unknown or ("none" in found and len(found) > 1):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither none nor a list of {' and '.join(FINDINGS)}"
        )
    return found


def configure(parser: argparse.ArgumentParser) -> None:
    """Add `build`, `check` and `diff`."""
    parser.add_argument(
        "--cluster", type=word, metavar="NAME", help="folder of flux/clusters (default: production)"
    )
    does = parser.add_subparsers(title="what to do", metavar="build|check|diff", required=True)
    built = add_command(does, "build", _BUILD_TEXT)
    built.add_argument("--yaml", action="store_true", help="print the objects, secrets masked")
    built.set_defaults(do=_build)
    check = add_command(does, "check", _CHECK_TEXT)
    check.add_argument(
        "path",
        nargs="?",
        type=Path,
        metavar="PATH",
        help="the folder that Flux starts from, in any repository: runs only the checks that hold "
        "for any tree (default: this repository's cluster)",
    )
    add_json(check)
    add_junit(check)
    check.set_defaults(do=_check)
    compare = add_command(does, "diff", _DIFF_TEXT)
    compare.add_argument("revision", type=word, metavar="REV", help="a commit, branch or tag")
    compare.add_argument(
        "--markdown", type=new_file, metavar="FILE", help="also write it for a pull request"
    )
    compare.add_argument(
        "--fail-on",
        type=_findings,
        default=FINDINGS,
        metavar="A,B",
        help="what ends with 1: refused (Kubernetes would refuse a change), data-loss, or none "
        f"(default: {','.join(FINDINGS)})",
    )
    add_json(compare)
    compare.set_defaults(do=_diff)


def run(args: argparse.Namespace) -> int:
    """Do what was asked."""
    from stackproof import terminal

    console = terminal.console(args, soft_wrap=True)
    if path := getattr(args, "path", None):
        return _check_any(path, args, console)
    args.cluster = args.cluster or "production"
    code: int = args.do(args, Checkout.find(), console)
    return code


def _check_any(path: Path, args: argparse.Namespace, console: Console) -> int:
    """Check a tree of anybody's making, whose repository is the one around the folder."""
    from stackproof.flux.checks import ANY_TREE, Subject, problems
    from stackproof.flux.tree import build_from

    start = path.resolve()
    if not start.is_dir():
        raise UsageError("there is no such folder", where=str(path))
    here = Path.cwd()
    above = [folder for folder in (start, *start.parents) if (folder / ".git").exists()]
    if not above and not start.is_relative_to(here):
        raise UsageError(
            "no folder above it has .git",
            where=str(path),
            todo="Run this in the root of its repository: paths in the tree are seen from there.",
        )
    root = above[0] if above else here
    clusters = sorted(each.relative_to(root) for each in root.glob("**/clusters/*/"))
    named = f"Name one as the PATH; there are: {', '.join(map(str, clusters)) or 'none'}."
    if args.cluster:
        raise UsageError(
            "a PATH is itself the folder that Flux starts from",
            where=f"--cluster {args.cluster}",
            todo=named,
        )
    tree = build_from(Checkout(root), start)
    found = list(problems(Subject(tree), ANY_TREE))
    _tell(args, console, found, tree, ANY_TREE)
    if any(name == "builds" for name, _ in found):
        if start == root and clusters:
            console.print(f"Does Flux start from a cluster's folder? {named}", style="yellow")
        return ExitCode.UNDECIDED
    return ExitCode.BAD if found else ExitCode.GOOD


def _tell(
    args: argparse.Namespace,
    console: Console,
    found: Sequence[tuple[str, str]],
    tree: Tree,
    checks: Sequence[str],
) -> None:
    from stackproof import terminal
    from stackproof.junit import Case

    for name, message in found:
        console.print(name, style="bold red", end=" ")
        console.print(message)
    for note in tree.notes:
        console.print(note, style="yellow")
    console.print(f"{counted(len(checks), 'check')}, {counted(len(found), 'problem')}")
    told = [{"check": name, "problem": message} for name, message in found]
    answer = {"checks": list(checks), "problems": told, "notes": list(tree.notes)}
    cases = []
    for check in checks:
        messages = [message for name, message in found if name == check]
        # Nothing is known of a step that does not build.
        which = ((), messages) if check == "builds" else (messages,)
        cases.append(Case("flux", check, *which))
    terminal.answer(args, answer, cases)


def _build(args: argparse.Namespace, checkout: Checkout, console: Console) -> int:
    from stackproof.flux.tree import build

    tree = build(checkout, args.cluster)
    code = 2 if tree.failures else 0
    if args.yaml:
        _print_yaml(tree)
        for who, problem in tree.failures:
            print(f"stackproof: {who} does not build: {problem}", file=sys.stderr)
        return code
    for number, step in enumerate(tree.steps):
        after = f"  after {', '.join(step.depends_on)}" if step.depends_on else ""
        title = (f"{number}. {step.name}", "bold")
        console.print(Text.assemble(title, f"  {checkout.show(step.folder)}", (after, "dim")))
        if step.note:
            console.print("   ", step.note, style="yellow")
        for problem in step.problems:
            console.print("   ", problem, style="red")
        for manifest in step.objects:
            where = f" in {manifest.namespace}" if manifest.namespace else ""
            console.print(f"     {manifest.ref}{where}")
            release = tree.releases.get((manifest.namespace or "", manifest.name))
            if manifest.kind == "HelmRelease" and release:
                for problem in release.problems:
                    console.print("     ", problem, style="red")
                if release.note:
                    console.print("     ", release.note, style="yellow")
                for made in release.rendered or ():
                    console.print(f"       {made.ref}", style="dim")
    return code


def _print_yaml(tree: Tree) -> None:
    from stackproof.flux.diff import as_yaml

    for applied in tree.applied:
        by = f", {applied.release.manifest.ref}" if applied.release else ""
        sys.stdout.write(f"---\n# step {applied.step.name}{by}: {applied.manifest.source}\n")
        sys.stdout.write(as_yaml(applied.manifest))


def _check(args: argparse.Namespace, checkout: Checkout, console: Console) -> int:
    from stackproof.flux.checks import FLUX, Subject, problems
    from stackproof.flux.delivered import differing
    from stackproof.flux.deployment import Deployment

    subject = Subject.load(checkout, args.cluster)
    found, asked = list(problems(subject)), list(FLUX.names)
    if not found:  # what a broken tree delivers is nothing to compare
        deployment = Deployment.load(checkout)
        found = [("delivered", text) for text in differing(subject.tree, deployment)]
        asked.append("delivered")
    _tell(args, console, found, subject.tree, asked)
    return 1 if found else 0


def _diff(args: argparse.Namespace, checkout: Checkout, console: Console) -> int:
    from stackproof import terminal
    from stackproof.flux import diff as comparison
    from stackproof.flux.tree import build

    with comparison.revision(checkout, args.revision) as before:
        if not (before.flux / "clusters" / args.cluster).is_dir():
            console.print(f"{args.revision} has no flux/clusters/{args.cluster}: all of it is new")
            (before.flux / "clusters" / args.cluster).mkdir(parents=True)
        old, new = build(before, args.cluster), build(checkout, args.cluster)
        entries, data = comparison.diff(old, new), comparison.lost(old, new)
        failed = comparison.failures(old, new, args.revision)
        notes = new.notes
    styles = {"added": "green", "changed": "yellow", "kept": "cyan"}
    for entry in entries:
        console.print(entry.change, style=f"bold {styles.get(entry.change, 'red')}", end=" ")
        console.print(entry.title)
        for line in entry.lines:
            style = {"+": "green", "-": "red"}.get(line[:1], "dim")
            console.print(f"  {line}", style=style)
    for note in notes:
        console.print(note, style="yellow")
    console.print(f"since {args.revision}: {comparison.summary(entries, failed)}")
    found = {"data-loss": data, "refused": comparison.warnings(entries), "error": failed}
    for label, texts in found.items():
        for text in texts:
            console.print(label, style="bold red", end=" ")
            console.print(text)
    terminal.answer(args, _as_json(args.revision, entries, found, notes))
    if args.markdown:
        text = comparison.as_markdown(entries, args.revision, failed, data=data)
        with writing(args.markdown.parent, "--markdown"):
            args.markdown.write_text(text, encoding="utf-8")
    if failed:
        return ExitCode.UNDECIDED
    return ExitCode.BAD if any(found.get(name) for name in args.fail_on) else ExitCode.GOOD


def _as_json(
    revision: str,
    entries: Sequence[ObjectDiff],
    found: Mapping[str, Sequence[str]],
    notes: Sequence[str],
) -> dict[str, object]:
    changes = []
    for entry in entries:
        _, kind, namespace, name = entry.key
        named = {"kind": kind, "namespace": namespace, "name": name, "by": entry.by}
        changes.append({"change": entry.change.value, **named, "diff": list(entry.lines)})
    findings = {name: list(texts) for name, texts in found.items()}
    return {"since": revision, "changes": changes, **findings, "notes": list(notes)}
