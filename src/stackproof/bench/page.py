"""The figures as one page that needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stackproof.repo.results import Provenance
from stackproof.report.page import templates
from stackproof.report.plots import Series, lines, spans

from .history import Recorded, compare
from .registry import Figures, about

_TEMPLATES = templates("stackproof.bench", "stackproof.report")


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that must not be above a limit."""

    says: str
    figure: str
    limit: float
    unit: str


TARGETS = (
    Goal("3 tenants, from the start to the verdict", "start_to_verdict_3_tenants_s", 2.0, "s"),
    Goal("1,000 tenants, verdict after the start", "scale_1000_tenants_s", 20.0, "s"),
    *(
        Goal(f"{signal}: 95 of 100 are visible within", f"visible_{signal}_p95_ms", 1000.0, "ms")
        for signal in ("traces", "metrics", "logs")
    ),
    Goal("growth of requests with tenants (1 is linear)", "growth_requests_exponent", 1.05, ""),
    Goal("growth of seconds with tenants (1 is linear)", "growth_seconds_exponent", 1.2, ""),
)


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture and the sentence that belongs to it."""

    title: str
    says: str
    picture: Markup


def page(figures: Figures, earlier: Sequence[Recorded], of: Provenance) -> str:
    """Return the page as HTML; what was not measured is left out."""
    last = earlier[-1] if earlier else None
    return _TEMPLATES.get_template("bench.html.jinja").render(
        about=about(),
        of=of,
        busy=figures.get("load_before", 0) > figures.get("cores", 1) / 2,
        figures=figures,
        targets=[
            (target, figures[target.figure], figures[target.figure] <= target.limit)
            for target in TARGETS
            if target.figure in figures
        ],
        plots=[plot for plot in _plots(figures) if plot.picture],
        last=last,
        compared=compare(figures, last.figures if last else {}),
        history=_history(earlier),
    )


_PARTS = ("mimir", "loki", "tempo", "gateway")


def _plots(figures: Figures) -> Sequence[Plot]:
    return (
        Plot(
            "Time to the verdict",
            "Tenants against seconds, both logarithmic: linear growth is a slope of one decade a "
            "decade. N² pairs are proven with N reads for each API.",
            _sizes(figures, {"seconds": r"scale_(\d+)_tenants_s"}, "seconds", goal=20.0),
        ),
        Plot(
            "Memory",
            "The most resident memory of each process.",
            _sizes(figures, {n: rf"scale_(\d+)_memory_{n}_mb" for n in (*_PARTS, "prover")}, "MB"),
        ),
        Plot(
            "Processor time",
            "Of the start and the whole proof, for each process: where the time goes.",
            _sizes(figures, {n: rf"scale_(\d+)_cpu_{n}_s" for n in _PARTS}, "seconds of processor"),
        ),
        Plot(
            "Emitted to visible, 3 tenants through their Alloys",
            "Median to the 99th of 100, over all read APIs. Tempo's search shows a trace when it "
            "has been idle for half a second.",
            _pairs(figures, r"visible_(\w+)_p50_ms", "visible_{}_p99_ms"),
        ),
        Plot(
            "Emitted to visible at 1,000 tenants, while all of them are proven",
            "Median to the 95th of 100.",
            _pairs(figures, r"scale_1000_visible_(\w+)_p50_ms", "scale_1000_visible_{}_p95_ms"),
        ),
        Plot(
            "A noisy neighbour",
            "The others' 95th of 100, without (dot) and with (end of the line) a tenant that sends "
            "all it can.",
            _pairs(figures, r"noisy_others_(\w+)_p95_without_ms", "noisy_others_{}_p95_with_ms"),
        ),
    )


def _sizes(
    figures: Figures, patterns: Mapping[str, str], unit: str, goal: float | None = None
) -> Markup:
    """Draw figures of different numbers of tenants: a line for each pattern, whose group is N."""
    series = []
    for name, pattern in patterns.items():
        found = {
            int(match[1]): value
            for figure, value in figures.items()
            if (match := re.fullmatch(pattern, figure)) and value > 0
        }
        if len(found) > 1:
            series.append(Series(name, sorted(found.items())))
    title = f"{unit} by number of tenants: {', '.join(patterns)}"
    return lines(title, series, "tenants", unit, logarithmic=True, goal=goal)


def _pairs(figures: Figures, low: str, high: str) -> Markup:
    rows = [
        (match[1], value, figures[high.format(match[1])])
        for name, value in figures.items()
        if (match := re.fullmatch(low, name)) and high.format(match[1]) in figures
    ]
    return spans("milliseconds", rows, "ms") if rows else Markup("")


def _history(earlier: Sequence[Recorded]) -> Markup:
    """Draw the targets' figures over the recorded runs, each in parts of its limit."""
    series = [
        Series(
            target.figure,
            [
                (number, run.figures[target.figure] / target.limit)
                for number, run in enumerate(earlier, start=1)
                if target.figure in run.figures
            ],
        )
        for target in TARGETS[:4]
    ]
    drawn = [each for each in series if len(each.points) > 1]
    return lines("Targets over recorded runs", drawn, "run", "share of the target", goal=1.0)
