"""Which branches of a chart's templates its scenarios and permutations render.

A branch is what an `if`, `else`, `with`, `range` or `define` runs or does not run, the else that
nobody wrote too: found by Go's own template parser, counted by probes (tools/render/coverage.go).

Left out are branches that cannot be entered: the empty case of a range over a list that stands in
the template, or over what an `if` or `with` around it has just found to be something. Others, that
only their author knows to be impossible, are declared in CHART/ci/stackproof/unreachable.yaml, each
with its reason; one that is entered nevertheless, or is no branch any more, is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import yaml

from stackproof.errors import StackproofError
from stackproof.helm import renderer
from stackproof.helm.externals import merged, read_values
from stackproof.helm.renderer import Branch, Render
from stackproof.values.combinations import Space, scenarios

THRESHOLD = 0.98
"""Share of the branches that must be rendered."""
UNREACHABLE = Path("ci", "stackproof", "unreachable.yaml")
_MIXED = 60
_RELEASES = ("open-webui", "one", "a-release-whose-name-is-longer-than-a-label-may-be")


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What of a chart was rendered."""

    chart: Path
    branches: tuple[Branch, ...]
    """Those that can be entered."""
    entered: frozenset[str]
    impossible: Mapping[str, str]
    """Id of each branch that cannot be entered, and why."""
    left_out: tuple[Branch, ...]
    renders: int

    @property
    def name(self) -> str:
        """The chart's name."""
        return self.chart.name

    @cached_property
    def missed(self) -> tuple[Branch, ...]:
        """The branches that nothing rendered."""
        return tuple(branch for branch in self.branches if branch.id not in self.entered)

    @property
    def covered(self) -> int:
        """How many branches were rendered."""
        return len(self.branches) - len(self.missed)

    @property
    def share(self) -> float:
        """Covered branches of all, 0 to 1; a chart without branches is covered."""
        return self.covered / len(self.branches) if self.branches else 1.0

    def record(self) -> dict[str, object]:
        """The coverage as build/report/coverage.json has it."""
        return {
            "branches": len(self.branches),
            "covered": self.covered,
            "share": round(self.share, 4),
            "unreachable": len(self.left_out),
            "renders": self.renders,
            "missed": [f"{b.template}:{b.line}:{b.column} {b.text}" for b in self.missed],
        }


def measure(chart: Path, *, mixed: int = _MIXED) -> Coverage:
    """Render a chart's scenarios and permutations, and return which branches they entered.

    Args:
        chart: The chart's folder.
        mixed: How many random mixtures of all switches to render, beside each switch alone.

    Raises:
        StackproofError: The chart cannot be read, or its unreachable.yaml is wrong.
    """
    requests = list(requested(chart, mixed))
    outcomes = renderer.render_many(requests)
    entered = frozenset[str]().union(*(outcome.branches for outcome in outcomes))
    every = renderer.renderer().branches(chart)
    impossible = {**_proven(every), **_declared(chart, every, entered)}
    return Coverage(
        chart=chart,
        branches=tuple(branch for branch in every if branch.id not in impossible),
        entered=entered,
        impossible=impossible,
        left_out=tuple(branch for branch in every if branch.id in impossible),
        renders=len(requests),
    )


def requested(chart: Path, mixed: int) -> Iterator[Render]:
    """Yield the renders of a chart that its coverage is made of."""
    space = Space.of(chart)
    plain = Render(chart=chart, release=_RELEASES[0], namespace="here", coverage=True)
    for values in scenarios(chart):
        for release in _RELEASES:
            yield replace(plain, values=[values], release=release)
        for less in _without_each_secret(values):
            yield replace(plain, values=[less])
    for choice in space.sample(mixed):
        yield replace(plain, values=[space.given(choice)])
    for refused in sorted((chart / "ci" / "refused").glob("*.yaml")):
        yield replace(plain, values=[refused])


def _without_each_secret(scenario: Path) -> Iterator[Mapping[str, object]]:
    """Yield a scenario without one of its secrets at a time: charts refuse that by a branch."""
    values = read_values(scenario)
    for key in values.get("secrets") or ():
        yield merged(values, {"secrets": {key: None}})


# --- What cannot happen -------------------------------------------------------------------------

_LITERAL = re.compile(r"(\$\w+(, \$\w+)? := )?(list|tuple) [\"\d]")


def _proven(branches: Sequence[Branch]) -> dict[str, str]:
    """Return the branches that cannot be entered whatever the values, and why."""
    found: dict[str, str] = {}
    for branch in branches:
        if not (branch.implicit and branch.kind == "range-else"):
            continue
        over = branch.text.removeprefix("else of range ")
        if _LITERAL.match(over):
            found[branch.id] = "the list stands in the template"
        elif guard := next((g for g in _around(branch, branches) if _finds(g, over)), None):
            found[branch.id] = f"line {guard.line} has found it to be something"
    return found


def _around(inner: Branch, branches: Sequence[Branch]) -> Iterator[Branch]:
    """Yield the branches of the same template that a branch lies in, the innermost first."""
    start = (inner.line, inner.column)
    outer = [
        b
        for b in branches
        if b.template == inner.template
        and (b.line, b.column) < start
        and b.end_line >= inner.end_line
        and b.kind in {"if", "with", "range", "define"}
    ]
    return iter(sorted(outer, key=lambda b: (b.line, b.column), reverse=True))


def _finds(guard: Branch, over: str) -> bool:
    """Tell whether being in a branch means that what is ranged over is something."""
    condition = guard.text.removeprefix(f"{guard.kind} ")
    over = over.rpartition(" := ")[2]
    if guard.kind == "with" and over == ".":
        return True
    same = over.removeprefix("$") == condition.removeprefix("$")
    return guard.kind in {"if", "with"} and same and over != "."


def _declared(chart: Path, branches: Sequence[Branch], entered: frozenset[str]) -> dict[str, str]:
    """Return the branches that the chart's own file calls unreachable, and its reasons."""
    file = chart / UNREACHABLE
    if not file.exists():
        return {}
    entries = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader) or []
    found: dict[str, str] = {}
    for entry in entries:
        meant = [
            b
            for b in branches
            if b.template.endswith(f"/{entry['template']}") and b.text == entry["branch"]
        ]
        where = f"{file}: {entry['template']}: {entry['branch']}"
        if not meant:
            raise StackproofError("there is no such branch", where=where, todo="Remove the entry.")
        for branch in meant:
            if branch.id in entered:
                raise StackproofError(
                    f"is entered (line {branch.line})", where=where, todo="Remove the entry."
                )
            found[branch.id] = entry["reason"]
    return found


def record(results: Sequence[Coverage]) -> dict[str, object]:
    """Return the charts as build/report/coverage.json has them."""
    return {"threshold": THRESHOLD, "charts": {one.name: one.record() for one in results}}
