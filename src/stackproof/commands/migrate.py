"""Say what a merge does to a release that holds data, or turn its values into new ones.

Exit code of `check`: 0 nothing is lost, 1 something would be, 2 something could not be compared.
Only digests of secrets are compared, and none is printed whole. Nothing is changed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from stackproof.errors import StackproofError, UsageError
from stackproof.options import (
    add_command,
    add_json,
    add_kubeconfig,
    namespace_name,
    refuse_beside,
    release_name,
    tenant_name,
    word,
)
from stackproof.repo.checkout import Checkout
from stackproof.wording import counted

if TYPE_CHECKING:
    from stackproof.migrate.checks import Change
    from stackproof.migrate.deployed import Deployed


_CHECK_TEXT = """\
Say what the merge does to a release that holds data, object by object.

Nothing is changed. Only digests of secrets are compared, and none is printed whole.
Exit code: 0 nothing is lost, 1 something would be, 2 something could not be compared."""

_VALUES_TEXT = """\
Print the values of an earlier release as values of this chart.

Comments name the values that have no place in this chart, and say why."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add `check` and `values`."""
    does = parser.add_subparsers(title="what to do", metavar="check|values", required=True)
    check = add_command(does, "check", _CHECK_TEXT)
    source = check.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--context",
        type=word,
        metavar="NAME",
        help="where the release runs: a context of the kubeconfig",
    )
    source.add_argument(
        "--old-manifest",
        type=Path,
        metavar="FILE",
        help="instead of a cluster: what `helm get manifest` prints",
    )
    check.add_argument(
        "--old-values", type=Path, metavar="FILE", help="what `helm get values` prints"
    )
    add_kubeconfig(check)
    _release(check)
    check.add_argument(
        "--cluster", type=word, metavar="NAME", help="folder of flux/clusters (default: production)"
    )
    check.add_argument(
        "--values",
        type=Path,
        action="append",
        metavar="FILE",
        help="the merge is `helm upgrade` with these values, not the Flux tree",
    )
    check.add_argument(
        "--store",
        type=Path,
        metavar="FILE",
        help="what the secret store holds: a map of remote key to value or sha256:DIGEST",
    )
    check.add_argument(
        "--database-revision",
        type=word,
        metavar="REV",
        help="newest migration of the application's database",
    )
    add_json(check)
    check.set_defaults(do=_check)
    values = add_command(does, "values", _VALUES_TEXT)
    values.add_argument("old", type=Path, metavar="OLD.yaml", help="values of the earlier release")
    values.add_argument(
        "--tenant",
        type=tenant_name,
        metavar="NAME",
        help="the tenant that the release belongs to (default: that of the namespace)",
    )
    _release(values)
    values.set_defaults(do=_values)


def _release(parser: argparse.ArgumentParser) -> None:
    for option, kind, text in (
        ("--namespace", namespace_name, "where the release is"),
        ("--release", release_name, "its name"),
    ):
        parser.add_argument(
            option,
            type=kind,
            default="open-webui",
            metavar="NAME",
            help=f"{text} (default: %(default)s)",
        )


def run(args: argparse.Namespace) -> int:
    """Do what was asked."""
    code: int = args.do(args, Checkout.find())
    return code


def _check(args: argparse.Namespace, checkout: Checkout) -> int:
    from stackproof import terminal
    from stackproof.migrate.checks import MIGRATION, RED, fates, next_steps, unproven

    refuse_beside(args, "--old-manifest", ["--kubeconfig"], "with files no cluster is asked")
    refuse_beside(args, "--context", ["--old-values"], "the cluster itself has the old values")
    refuse_beside(args, "--values", ["--cluster"], "with these values the Flux tree is not read")
    console = terminal.console(args, soft_wrap=True)
    change = _change(args, checkout, _deployed(args))
    objects = sorted(fates(change).items(), key=_order)
    for (_, kind, namespace, name), fate in objects:
        style = "bold red" if fate in RED else "dim"
        console.print(Text(f"{fate.value:<10}", style), f"{kind}/{name} in {namespace}")
    problems = [(check.name, text) for check in MIGRATION for text in check.find(change)]
    for name, text in problems:
        console.print(Text(name, "bold red"), text)
    open_questions = list(unproven(change))
    for text in open_questions:
        console.print(Text("not compared", "bold yellow"), text)
    steps = list(next_steps(change))
    for text in steps:
        console.print(Text("next", "bold"), text)
    console.print(
        f"{counted(len(MIGRATION.names), 'check')}, {counted(len(problems), 'problem')}, "
        f"{len(open_questions)} not compared"
    )
    answer = {
        "objects": [
            {"kind": kind, "namespace": namespace, "name": name, "fate": fate.value}
            for (_, kind, namespace, name), fate in objects
        ],
        "problems": [{"check": name, "problem": text} for name, text in problems],
        "not_compared": open_questions,
        "next": steps,
    }
    terminal.answer(args, answer)
    return 1 if problems else 2 if open_questions else 0


def _order(entry: tuple[tuple[str, str, str | None, str], str]) -> tuple[str, str, str]:
    (_, kind, _, name), fate = entry
    return str(fate), kind, name


def _deployed(args: argparse.Namespace) -> Deployed:
    from stackproof.kube.client import Kube
    from stackproof.migrate import deployed

    if args.context:
        kube = Kube(args.context, args.kubeconfig)
        found = deployed.from_cluster(kube, release=args.release, namespace=args.namespace)
    else:
        found = deployed.from_files(
            args.old_manifest, args.old_values, release=args.release, namespace=args.namespace
        )
    if args.store:
        found = replace(found, store={**(found.store or {}), **deployed.read_store(args.store)})
    if args.database_revision:
        found = replace(found, revision=args.database_revision)
    return found


def _change(args: argparse.Namespace, checkout: Checkout, old: Deployed) -> Change:
    from stackproof.flux.releases import AUTO
    from stackproof.flux.tree import build
    from stackproof.helm import renderer
    from stackproof.migrate.checks import Change, Merge, merged
    from stackproof.migrate.images import goal, migrations

    if args.values:
        chart = checkout.charts / "open-webui-stack"
        new = renderer.render(chart, args.values, release=args.release, namespace=args.namespace)
        merge = Merge(tuple(new), old.level, AUTO)
    else:
        tree = build(checkout, args.cluster or "production")
        found = merged(tree, args.namespace, args.release)
        if found is None:
            why = "\n".join(p for r in tree.releases.values() for p in r.problems)
            raise StackproofError(
                f"no HelmRelease makes release {args.release} in namespace {args.namespace}"
                + (f"\n{why}" if why else ""),
                where=checkout.show(checkout.flux),
                todo="Name it: --release, --namespace. If the tree really has no such release, "
                "nothing will use what runs there: its claims and its database.",
            )
        merge = found
    known = migrations(checkout, merge.manifests)
    return Change(old, merge.manifests, merge.level, known, goal(checkout), merge.apply)


def _values(args: argparse.Namespace, checkout: Checkout) -> int:
    from stackproof.migrate.values import converted
    from stackproof.repo.tenants import load_registry

    names = [t.name for t in load_registry(checkout) if t.namespace == args.namespace]
    tenant = args.tenant or next(iter(names), None)
    if tenant is None:
        raise UsageError(
            f"no tenant has the namespace {args.namespace}", todo="Name one: --tenant."
        )
    result = converted(
        checkout, args.old, release=args.release, namespace=args.namespace, tenant=tenant
    )
    sys.stdout.write(result.as_yaml())
    return 0
