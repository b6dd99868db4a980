"""Say what is wrong with any chart's objects, whatever its values: the invariants.

A chart is rendered with each of its scenarios (ci/*.yaml, as chart-testing has them), or with its
defaults where it has none, or with the values that are given.

Exit code: 0 all hold; 1 some do not; 2 a render failed, so that not all could be told.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stackproof.errors import ExitCode
from stackproof.options import chart, check_names, names
from stackproof.repo.checkout import Checkout

if TYPE_CHECKING:
    from stackproof.helm.renderer import Values

#: What stands in the place of an invariant's name: it did not render, or was not looked at.
_RENDER, _NOTE = "render", "note"


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
    parser.add_argument("--namespace", default="default", metavar="NAME", help="(%(default)s)")
    parser.add_argument(
        "--without", type=names, default=(), metavar="A,B", help="leave these invariants out"
    )


def run(args: argparse.Namespace) -> int:
    """Print each problem once, and in how many renders it is."""
    from rich.console import Console

    from stackproof.checks.invariants import INVARIANTS
    from stackproof.toolchain import programs

    check_names("invariant", args.without, INVARIANTS.names, "--without")
    console = Console(soft_wrap=True, highlight=False)
    programs.locate("render", console=Console(stderr=True))
    all_found: set[str] = set()
    for folder in args.charts:
        problems: dict[tuple[str, str], list[str]] = {}
        cases = list(_cases(folder, args.values))
        for case, values in cases:
            for each in _problems(folder, values, args.namespace, args.without):
                problems.setdefault(each, []).append(case)
        for (invariant, problem), where in problems.items():
            console.print(invariant, style="dim" if invariant == _NOTE else "bold red", end=" ")
            console.print(problem, markup=False, end=" ")
            console.print(f"({', '.join(where[:3])}{' …' if where[3:] else ''})", style="dim")
        found = [name for name, _ in problems if name != _NOTE]
        all_found.update(found)
        console.print(
            f"{folder.name}: {len(cases)} renders, {len(INVARIANTS.names) - len(args.without)} "
            f"invariants, {len(found)} problems"
        )
    if _RENDER in all_found:
        return ExitCode.UNDECIDED
    return ExitCode.BAD if all_found else ExitCode.GOOD


def _cases(folder: Path, given: Sequence[Path] | None) -> Iterator[tuple[str, Sequence[Values]]]:
    """Yield the values that a chart is rendered with, each with a name."""
    from stackproof.values.combinations import scenarios

    if given:
        yield " ".join(path.name for path in given), given
        return
    found = scenarios(folder)
    for path in found:
        yield str(path.relative_to(folder)), [path]
    if not found:
        yield "defaults", ()


def _problems(
    folder: Path, values: Sequence[Values], namespace: str, without: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield the invariants that one render breaks, and how."""
    from stackproof.checks.invariants import INVARIANTS
    from stackproof.helm import renderer, schema
    from stackproof.helm.externals import ExternalObjects

    try:
        release = renderer.render(folder, values, release="release-name", namespace=namespace)
    except renderer.HelmError as error:
        yield _RENDER, error.message
        return
    schemas = schema.schemas(renderer.newest_kubernetes(), Checkout.own().root / "schemas")
    foreign = [each for each in release if schemas.foreign(each)]
    for each in foreign:
        yield _NOTE, f"{each.source}: {each.ref} is not looked at: no schema of {each.api_version}"
    release = replace(release, manifests=tuple(m for m in release if m not in foreign))
    rendered = ExternalObjects.load(folder).around(release, values)
    for invariant in INVARIANTS:
        if invariant.name in without:
            continue
        problems = list(invariant.find(rendered))
        yield from ((invariant.name, problem) for problem in problems)
        # Objects that are not valid have no shape that the others could look at.
        if problems and invariant.name == "schema-valid":
            return
