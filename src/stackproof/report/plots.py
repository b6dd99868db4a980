"""Small plots as SVG: no script, no font, no file of their own; colours come from the page's style.

Lines differ by colour and by dash, so that they are told apart in grey too. A plot is a picture to
assistive technology, with a title that says what it shows: the figures belong in a table beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_WIDTH = 760


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot: its name, and points (x, y) in the order in which they are joined."""

    name: str
    points: Sequence[tuple[float, float]]


def _figure(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def steps(most: float, count: int = 5) -> list[float]:
    """Return round numbers from 0 to the first that is not below `most`: at most `count` + 2."""
    if most <= 0:
        return [0.0, 1.0]
    rough = 10 ** math.floor(math.log10(most / count))
    step = next(rough * each for each in (1, 2, 5, 10) if rough * each * count >= most)
    return [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]


def decades(least: float, most: float) -> list[float]:
    """Return powers of ten, the first not above `least`, the last not below `most`."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def _text(x: float, y: float, text: object, kind: str = "") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(kind, x, y, text)


def _path(kind: str, way: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(kind, way)


def _dot(kind: str, x: float, y: float) -> Markup:
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4.5"/>').format(kind, x, y)


#: Above the rows: the figures of the axis.
_TOP = 26


def _axis(
    ticks: Sequence[float], at: Callable[[float], float], height: int, unit: str
) -> list[Markup]:
    return [
        _path("axis", f"M{at(tick):.1f} {_TOP - 6}V{height - 4}")
        + _text(at(tick), 14, f"{_figure(tick)} {unit}", "middle")
        for tick in ticks
    ]


def spans(title: str, rows: Sequence[tuple[str, float, float]], unit: str) -> Markup:
    """Draw a row for each (name, median, most): a dot at the median, a line that ends at most."""
    left, row = 200, 22
    ticks = steps(max((most for _, _, most in rows), default=0))
    height = _TOP + row * len(rows) + 8
    at = _linear(ticks, left, _WIDTH - 110)
    parts = _axis(ticks, at, height, unit)
    for number, (name, middle, most) in enumerate(rows):
        y = _TOP + row * number + row // 2
        parts += [
            _text(left - 12, y + 4, name, "name end"),
            _path("whisker", f"M{at(middle):.1f} {y}H{at(most):.1f}"),
            _dot("dot", at(middle), y),
            _text(at(most) + 9, y + 4, f"{_figure(middle)} / {_figure(most)}"),
        ]
    return _picture(title, height, parts)


@dataclass(frozen=True, slots=True)
class Bar:
    """A time on a row of a timeline, in seconds; `kind` is the class that it is drawn by."""

    begin: float
    end: float
    kind: str


def timeline(title: str, rows: Sequence[tuple[str, Sequence[Bar], str]]) -> Markup:
    """Draw a row for each (name, bars, figure) along one axis of seconds."""
    left, row = 330, 20
    ticks = steps(max((bar.end for _, bars, _ in rows for bar in bars), default=0))
    height = _TOP + row * len(rows) + 8
    at = _linear(ticks, left, _WIDTH - 70)
    parts = _axis(ticks, at, height, "s")
    for number, (name, bars, figure) in enumerate(rows):
        y = _TOP + row * number + row // 2
        parts += [_text(left - 12, y + 4, name, "name end"), _text(_WIDTH - 58, y + 4, figure)]
        parts += [
            # What took no time is seen as well.
            _path(
                bar.kind,
                f"M{at(max(bar.begin, 0)):.1f} {y}H{max(at(bar.end), at(bar.begin) + 1.5):.1f}",
            )
            for bar in bars
        ]
    return _picture(title, height, parts)


def lines(
    title: str,
    series: Sequence[Series],
    x_name: str,
    y_name: str,
    *,
    logarithmic: bool = False,
    goal: float | None = None,
) -> Markup:
    """Draw lines with a mark at each point; `goal` is a dashed level that y should stay below."""
    left, right, top, bottom = 70, _WIDTH - 170, 34, 300
    xs = [x for each in series for x, _ in each.points]
    ys = [y for each in series for _, y in each.points] + ([goal] if goal else [])
    if not xs:
        return Markup("")
    if logarithmic:
        x_ticks, y_ticks = decades(min(xs), max(xs)), decades(min(ys), max(ys))
        x_at, y_at = _logarithmic(x_ticks, left, right), _logarithmic(y_ticks, bottom, top)
    else:
        x_ticks, y_ticks = steps(max(xs)), steps(max(ys))
        x_at, y_at = _linear(x_ticks, left, right), _linear(y_ticks, bottom, top)
    parts = [
        _path("axis", f"M{x_at(tick):.1f} {top}V{bottom}")
        + _text(x_at(tick), bottom + 18, _figure(tick), "middle")
        for tick in x_ticks
    ]
    parts += [
        _path("axis", f"M{left} {y_at(tick):.1f}H{right}")
        + _text(left - 8, y_at(tick) + 4, _figure(tick), "end")
        for tick in y_ticks
    ]
    parts += [_text((left + right) / 2, bottom + 38, x_name, "middle"), _text(8, 14, y_name)]
    if goal:
        parts.append(_path("goal", f"M{left} {y_at(goal):.1f}H{right}"))
    beside = _spread([y_at(each.points[-1][1]) + 4 for each in series])
    for number, each in enumerate(series):
        places = [(x_at(x), y_at(y)) for x, y in each.points]
        way = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts += [
            Markup('<g class="s{}">').format(number % 5),
            _path("line", way),
            *(_dot("mark", x, y) for x, y in places),
            Markup("</g>"),
            _text(places[-1][0] + 10, beside[number], each.name, "name"),
        ]
    return _picture(title, bottom + 48, parts)


def _spread(heights: Sequence[float], apart: float = 16) -> list[float]:
    """Return the heights moved down as far as labels need not to cover each other."""
    moved = dict.fromkeys(range(len(heights)), 0.0)
    last = -math.inf
    for index in sorted(moved, key=lambda each: heights[each]):
        last = moved[index] = max(heights[index], last + apart)
    return list(moved.values())


def _linear(ticks: Sequence[float], begin: float, end: float) -> Callable[[float], float]:
    low, high = ticks[0], ticks[-1]
    return lambda value: begin + (value - low) / (high - low) * (end - begin)


def _logarithmic(ticks: Sequence[float], begin: float, end: float) -> Callable[[float], float]:
    inner = _linear([math.log10(tick) for tick in ticks], begin, end)
    return lambda value: inner(math.log10(value))


def _picture(title: str, height: int, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        _WIDTH, height, escape(title)
    )
    return Markup("").join([head, *parts, Markup("</svg>")])
