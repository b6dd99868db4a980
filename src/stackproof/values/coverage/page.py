"""The coverage as one page that needs nothing but itself: the templates, missed branches marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from stackproof.helm.renderer import Branch
from stackproof.wording import percent

from . import THRESHOLD, Coverage

_ENVIRONMENT = Environment(
    loader=PackageLoader("stackproof.values.coverage", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Line:
    """A line of a template as the page shows it."""

    number: int
    text: str
    state: str
    """missed, partly (an else that nobody wrote was never taken), covered, impossible, plain."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Template:
    """A template with its figures."""

    name: str
    anchor: str
    lines: tuple[Line, ...]
    branches: int
    missed: int

    @property
    def percent(self) -> str:
        """Covered branches of all."""
        return percent(self.branches - self.missed, self.branches)


def page(results: Sequence[Coverage]) -> str:
    """Return the page of one or more charts."""
    charts = [
        {
            "name": one.name,
            "percent": percent(one.covered, len(one.branches)),
            "good": one.share >= THRESHOLD,
            "branches": len(one.branches),
            "covered": one.covered,
            "missed": one.missed,
            "impossible": len(one.left_out),
            "renders": one.renders,
            "templates": list(_templates(one)),
        }
        for one in results
    ]
    return _ENVIRONMENT.get_template("page.html.jinja").render(
        charts=charts, threshold=f"{THRESHOLD:.0%}"
    )


def _templates(one: Coverage) -> Iterator[Template]:
    names = sorted({branch.template for branch in (*one.branches, *one.left_out)})
    for name in names:
        own = [branch for branch in one.branches if branch.template == name]
        file = one.chart / name.split("/", 1)[1]
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        yield Template(
            name.split("/", 1)[1],
            f"{one.name}-{name}".replace("/", "-"),
            tuple(_lines(one, name, text)),
            len(own),
            sum(branch.id not in one.entered for branch in own),
        )


def _lines(one: Coverage, name: str, text: str) -> Iterator[Line]:
    states: dict[int, str] = {}
    notes: dict[int, list[str]] = {}
    for branch in one.branches:
        if branch.template == name:
            _mark(states, notes, branch, taken=branch.id in one.entered)
    for branch in one.left_out:
        if branch.template == name:
            notes.setdefault(branch.line, []).append(
                f"cannot happen: {branch.text} ({one.impossible[branch.id]})"
            )
    for number, line in enumerate(text.splitlines(), start=1):
        yield Line(number, line, states.get(number, "plain"), tuple(notes.get(number, ())))


def _mark(
    states: dict[int, str], notes: dict[int, list[str]], branch: Branch, *, taken: bool
) -> None:
    if taken:
        states.setdefault(branch.line, "covered")
    elif branch.implicit:
        states[branch.line] = "partly"
        notes.setdefault(branch.line, []).append(f"never taken: {branch.text}")
    else:
        for number in range(branch.line, branch.end_line + 1):
            states[number] = "missed"
        notes.setdefault(branch.line, []).append(f"never rendered: {branch.text}")
