"""What a benchmark is, where its figures go, and how they are read."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from stackproof.errors import writing
from stackproof.repo import results
from stackproof.repo.checkout import Checkout
from stackproof.repo.results import Provenance
from stackproof.wording import counted

#: Name to number. A name ends with its unit (`_s`, `_ms`, `_mb`, `_per_s`) or says it is a ratio.
Figures = dict[str, float]
Benchmark = Callable[[Checkout], Figures]
BENCHMARKS: dict[str, Benchmark] = {}
#: What a benchmark is measured with, in a line, where that is more than this machine.
WITH: dict[str, Callable[[], str]] = {}


def benchmark(measure: Benchmark) -> Benchmark:
    """Register a function under its own name; its first line of documentation says what it does."""
    BENCHMARKS[measure.__name__.replace("_", "-")] = measure
    return measure


def write(
    name: str, figures: Mapping[str, float], folder: Path, of: Provenance, using: str = ""
) -> Path:
    """Lay a benchmark's figures over those of folder/bench.json, and return its path.

    What was measured of other files goes: it says nothing of these.
    """
    earlier = results.read(folder / "bench.json")
    known = earlier.found if earlier and earlier.of.same_source(of) else {}
    measured = sorted({*known.get("measured", ()), name})
    both = dict(sorted({**known.get("figures", {}), **figures}.items()))
    others = {**known.get("with", {}), **({name: using} if using else {})}
    with writing(folder):
        target = folder / "bench.json"
        found = {"measured": measured, "figures": both, "with": others}
        whole = set(measured) >= set(BENCHMARKS)
        results.write_json(target, results.content(found, of, whole=whole))
    return target


def read(folder: Path) -> Figures:
    """Return the figures of folder/bench.json, none where there is no such file."""
    result = results.read(folder / "bench.json")
    figures: Figures = result.found["figures"] if result else {}
    return figures


def quantile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan


@benchmark
def machine(checkout: Checkout) -> Figures:  # noqa: ARG001
    """What it is measured on: cores, how busy they were before, how fast one of them is."""
    load = os.getloadavg()[0]
    began = time.process_time()
    digest = b""
    for _ in range(200_000):
        digest = hashlib.sha256(digest * 4).digest()
    return {
        "cores": float(os.cpu_count() or 1),
        "load_before": round(load, 2),
        # A fixed piece of work, in processor time: other runs are compared in this measure.
        "yardstick_s": round(time.process_time() - began, 3),
    }


def about() -> str:
    """Return one line about the machine."""
    cores = counted(os.cpu_count() or 1, "core")
    return f"Python {platform.python_version()}, {platform.machine()}, {cores}"
