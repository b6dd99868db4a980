"""The matrix as geometry: few rectangles, whether there are three tenants or a thousand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from stackproof.isolation.verdict import Cell, Matrix, Observed
from stackproof.model import Signal


class State(StrEnum):
    """What a cell looks like; the later one wins where several share a place."""

    HIDDEN = "hidden"
    OWN = "own"
    UNKNOWN = "unknown"
    MISSING = "missing"
    LEAK = "leak"


_RANK = {state: rank for rank, state in enumerate(State)}

#: More rectangles than this and the picture is drawn coarser.
MOST_RECTANGLES = 3000
#: Leaks fewer than this get a ring around them, so that one in a million is seen.
MOST_RINGS = 200


def state(cell: Cell) -> State:
    """Return what a cell looks like."""
    if cell.reader == cell.owner:
        return State.OWN if cell.observed is Observed.VISIBLE else State.MISSING
    return {
        Observed.VISIBLE: State.LEAK,
        Observed.UNKNOWN: State.UNKNOWN,
        Observed.HIDDEN: State.HIDDEN,
    }[cell.observed]


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Cells of one state side by side; `x` counts owners, `y` readers, both from 0."""

    x: int
    y: int
    width: int
    height: int
    state: State


@dataclass(frozen=True, slots=True)
class Panel:
    """One signal's matrix: all is as expected but for `rectangles`.

    `block` is how many tenants one unit of a rectangle stands for: 1, or more where the picture had
    to be drawn coarser (then a block shows the worst that is in it). `rings` are the places (owner,
    reader) of leaks, where they are few.
    """

    signal: Signal
    size: int
    rectangles: tuple[Rectangle, ...]
    rings: tuple[tuple[int, int], ...]
    block: int


def panel(matrix: Matrix, signal: Signal, exceptions: Iterable[Cell]) -> Panel:
    """Return the picture of one signal; `exceptions` are that signal's cells not as expected."""
    place = {tenant: index for index, tenant in enumerate(matrix.tenants)}
    rows: dict[int, dict[int, State]] = defaultdict(dict)
    for cell in exceptions:
        rows[place[cell.reader]][place[cell.owner]] = state(cell)
    size = len(matrix.tenants)
    block = 1
    rectangles = merge(rows)
    while len(rectangles) > MOST_RECTANGLES:
        block = max(block + 1, block * 2)
        rectangles = [
            Rectangle(r.x * block, r.y * block, r.width * block, r.height * block, r.state)
            for r in merge(coarser(rows, block))
        ]
    leaks = [(x, y) for y, row in rows.items() for x, seen in row.items() if seen is State.LEAK]
    rings = tuple(leaks) if len(leaks) <= MOST_RINGS else ()
    return Panel(signal, size, tuple(rectangles), rings, block)


def coarser(rows: dict[int, dict[int, State]], block: int) -> dict[int, dict[int, State]]:
    """Return the grid with `block` by `block` cells in one, showing the worst of them."""
    result: dict[int, dict[int, State]] = defaultdict(dict)
    for y, row in rows.items():
        for x, seen in row.items():
            target = result[y // block]
            before = target.get(x // block)
            if before is None or _RANK[seen] > _RANK[before]:
                target[x // block] = seen
    return result


def merge(rows: dict[int, dict[int, State]]) -> list[Rectangle]:
    """Return rectangles that cover exactly the cells of `rows`, equal neighbours in one.

    Runs within a row are joined first, then equal runs of consecutive rows.
    """
    done: list[Rectangle] = []
    growing: dict[tuple[int, int, State], Rectangle] = {}
    last = -1
    for y in sorted(rows):
        runs = _runs(rows[y])
        kept: dict[tuple[int, int, State], Rectangle] = {}
        for x, width, seen in runs:
            above = growing.pop((x, width, seen), None) if y == last + 1 else None
            top, height = (above.y, above.height + 1) if above else (y, 1)
            kept[x, width, seen] = Rectangle(x, top, width, height, seen)
        done += growing.values()
        growing, last = kept, y
    return [*done, *growing.values()]


def _runs(row: dict[int, State]) -> list[tuple[int, int, State]]:
    runs: list[tuple[int, int, State]] = []
    for x in sorted(row):
        if runs and runs[-1][0] + runs[-1][1] == x and runs[-1][2] is row[x]:
            begin, width, seen = runs[-1]
            runs[-1] = (begin, width + 1, seen)
        else:
            runs.append((x, 1, row[x]))
    return runs


def panels(matrix: Matrix) -> tuple[Panel, ...]:
    """Return one panel for each signal."""
    odd: dict[Signal, list[Cell]] = defaultdict(list)
    for cell in matrix.exceptions():
        odd[cell.signal].append(cell)
    return tuple(panel(matrix, signal, odd[signal]) for signal in matrix.signals)


def ticks(tenants: Sequence[str], most: int = 5, length: int = 12) -> list[tuple[int, str]]:
    """Return at most `most` places, evenly spread, at which an axis names the tenant in short."""
    step = max(1, -(-len(tenants) // most))
    return [
        # What tells names apart is as often at their end.
        (index, name if len(name) <= length else f"{name[:5]}…{name[6 - length :]}")
        for index, name in list(enumerate(tenants))[::step]
    ]
