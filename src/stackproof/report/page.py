"""The proof as one page that needs nothing but itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackproof.backends import PROVABLE, READ_APIS
from stackproof.isolation import Proof
from stackproof.isolation.verdict import Finding, Violation
from stackproof.model import Signal
from stackproof.repo.results import Provenance
from stackproof.wording import counted, percent

from . import upgrade
from .data import ALL_CELLS, Extras
from .picture import Panel, State, panels, state, ticks
from .plots import spans
from .wording import groups, headline

if TYPE_CHECKING:
    from jinja2 import Environment

#: At most this many violations are shown in full; the JSON beside the page holds them all.
MOST_VIOLATIONS = 100

_WORDS = {
    State.OWN: "sees its own, as it should",
    State.HIDDEN: "hidden, as it should be",
    State.LEAK: "LEAK: visible to somebody else",
    State.MISSING: "does not see its own",
    State.UNKNOWN: "unproven",
}


def templates(*packages: str) -> Environment:
    """Return the templates of these packages, the first first; what is put in is escaped."""
    # Not above: whoever waits for a stack need not wait for this, a tenth of a second.
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=ChoiceLoader([PackageLoader(each, "templates") for each in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["percent"] = percent
    return made


@dataclass(frozen=True, slots=True)
class _Shown:
    """One cell of a small matrix."""

    state: State
    label: str
    target: str


@dataclass(frozen=True, slots=True)
class _Ring:
    """One leak in a large picture."""

    x: int
    y: int
    label: str
    target: str


@dataclass(frozen=True, slots=True)
class _CheckGroup:
    """All checks of one name: how many there were, and those that failed."""

    name: str
    count: int
    failed: tuple[Finding, ...]


def page(proof: Proof, extras: Extras, of: Provenance, *, whole: bool = True) -> str:
    """Return the page as HTML; whatever came from a backend is escaped."""
    drawn = panels(proof.matrix)
    small = len(proof.tenants) <= ALL_CELLS
    shown = proof.violations[:MOST_VIOLATIONS]
    template = templates("stackproof.report").get_template("page.html.jinja")
    return template.render(
        proof=proof,
        extras=extras,
        of=of,
        whole=whole,
        provable=len(PROVABLE),
        headline=headline(proof),
        summary=proof.matrix.summary(),
        small=small,
        grids=[(drawing.signal, _grid(proof, drawing.signal)) for drawing in drawn]
        if small
        else [],
        panels=[] if small else [(drawing, _rings(proof, drawing)) for drawing in drawn],
        ticks=ticks(proof.tenants),
        words=_WORDS,
        states=list(State),
        violations=groups(shown),
        more_violations=max(0, len(proof.violations) - MOST_VIOLATIONS),
        contents=_contents(proof, extras),
        latencies=spans(
            "Milliseconds until telemetry is visible, for each read API",
            [(api.api, api.visible_p50_ms, api.visible_max_ms) for api in proof.apis],
            "ms",
        ),
        timeline=upgrade.drawn(extras.upgrade),
        stale=extras.stale,
        failed_attacks=[each for each in extras.attacks if not each.get("ok", True)],
        uncaught=[each for each in extras.twins if not each.get("caught_by")],
        excluded=[api for api in READ_APIS if api.excluded and api.signal in proof.signals],
        checks=_groups(proof.checks),
        anchors={id(violation): _anchor(index) for index, violation in enumerate(shown)},
        identity=id,
        counted=counted,
    )


def _contents(proof: Proof, extras: Extras) -> list[tuple[str, str]]:
    """Return the page's sections that there are: anchor and title."""
    sections = (
        ("matrix", "Matrix", True),
        ("violations", "What is wrong", bool(proof.violations)),
        ("apis", "Read APIs", True),
        ("timings", "Timings", True),
        ("checks", "Further checks", bool(proof.checks)),
        ("attacks", "Attacks", bool(extras.attacks)),
        ("twins", "Faults put back", bool(extras.twins)),
        ("coverage", "Coverage", bool(extras.coverage.get("charts"))),
        ("mutants", "Mutants", bool(extras.mutants)),
        ("upgrade", "Upgrade", bool(extras.upgrade)),
        ("run", "The run", True),
    )
    return [(anchor, title) for anchor, title, there in sections if there]


def _anchor(index: int) -> str:
    return f"violation-{index + 1}"


def _rings(proof: Proof, drawing: Panel) -> list[_Ring]:
    where = _targets(proof.violations)
    rings = []
    for x, y in drawing.rings:
        owner, reader = proof.tenants[x], proof.tenants[y]
        target = where.get((reader, owner, drawing.signal), "")
        rings.append(_Ring(x, y, f"{reader} reads {owner}'s {drawing.signal}", target))
    return rings


def _grid(proof: Proof, signal: Signal) -> list[tuple[str, list[_Shown]]]:
    where = _targets(proof.violations)
    rows = []
    for reader in proof.tenants:
        row = []
        for owner in proof.tenants:
            cell = proof.matrix.cell(reader, owner, signal)
            seen = state(cell)
            took = "" if cell.latency_ms is None else f" ({cell.latency_ms:.0f} ms)"
            label = f"{reader} reading {owner}'s {signal}: {_WORDS[seen]}{took}"
            row.append(_Shown(seen, label, where.get((reader, owner, signal), "")))
        rows.append((reader, row))
    return rows


def _targets(violations: Sequence[Violation]) -> dict[tuple[str, str, Signal], str]:
    """Return where on the page a cell that is not as expected is explained."""
    targets: dict[tuple[str, str, Signal], str] = {}
    for index, violation in enumerate(violations[:MOST_VIOLATIONS]):
        if violation.signal is None:
            continue
        for owner in violation.owners:
            key = (violation.reader, owner, violation.signal)
            targets.setdefault(key, _anchor(index))
    return targets


def _groups(checks: Sequence[Finding]) -> list[_CheckGroup]:
    counts = Counter(check.name for check in checks)
    failed = [check for check in checks if not check.ok]
    return [
        _CheckGroup(name, count, tuple(check for check in failed if check.name == name))
        for name, count in counts.items()
    ]
