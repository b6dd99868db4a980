"""Measure what users wait for: rendering, the unit suite, the start of the stack, the verdict.

Each benchmark is a function from a checkout to figures; `BENCHMARKS` is the registry. A figure's
name ends with its unit (`_s`, `_ms`, `_per_s`) or says that it is a ratio.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from stackproof import helm, isolation, programs
from stackproof.checkout import Checkout
from stackproof.deployment import Deployment
from stackproof.errors import StackproofError
from stackproof.helm import Render
from stackproof.permutations import Space, scenarios
from stackproof.stack.local import LocalStack
from stackproof.stack.pod import Pod

Figures = dict[str, float]
Benchmark = Callable[[Checkout], Figures]
BENCHMARKS: dict[str, Benchmark] = {}

_RENDERS = 200
_HELM_RUNS = 12
_STARTS = 3
_ROUNDS = 5


def benchmark(measure: Benchmark) -> Benchmark:
    """Register a function under its own name."""
    BENCHMARKS[measure.__name__.replace("_", "-")] = measure
    return measure


def write(figures: Mapping[str, float], folder: Path) -> Path:
    """Lay figures over those of folder/bench.json, and return its path."""
    target = folder / "bench.json"
    folder.mkdir(parents=True, exist_ok=True)
    known = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    both = {**known, **figures}
    target.write_text(json.dumps(both, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return target


def quantile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan


@benchmark
def machine(checkout: Checkout) -> Figures:  # noqa: ARG001
    """What it is measured on: cores, and how busy they were before."""
    return {"cores": float(os.cpu_count() or 1), "load_before": round(os.getloadavg()[0], 2)}


@benchmark
def renders(checkout: Checkout) -> Figures:
    """Render both charts' permutations in process, and their scenarios by the helm program."""
    charts = sorted(file.parent for file in checkout.charts.glob("*/Chart.yaml"))
    asked = [one for chart in charts for one in _permuted(chart, _RENDERS // len(charts))]
    helm.render_many(asked[:2], fresh=True)  # starts the program, loads the charts
    began = time.perf_counter()
    helm.render_many(asked, fresh=True)
    in_process = len(asked) / (time.perf_counter() - began)
    files = [(chart, file) for chart in charts for file in scenarios(chart)][:_HELM_RUNS]
    with tempfile.TemporaryDirectory(prefix="stackproof-bench-") as home:
        began = time.perf_counter()
        for chart, file in files:
            _helm_template(chart, file, home)
        by_program = len(files) / (time.perf_counter() - began)
    return {
        "renders_per_s_in_process": round(in_process, 1),
        "renders_per_s_helm_program": round(by_program, 2),
        "renders_per_s_ratio_to_helm": round(in_process / by_program, 1),
    }


def _permuted(chart: Path, most: int) -> list[Render]:
    space = Space.of(chart)
    return [
        Render(
            chart=chart,
            values=[space.given(choice)],
            release="one",
            namespace="here",
            kube_version=helm.newest_kubernetes(),
        )
        for choice in space.sample(most)[-most:]
    ]


def _helm_template(chart: Path, values: Path, home: str) -> None:
    subprocess.run(
        [programs.find("helm"), "template", "one", chart, "--namespace=here", "--values", values],
        check=True,
        stdout=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": home},
    )


@benchmark
def unit_suite(checkout: Checkout) -> Figures:
    """Run the unit tests as `make test-unit` does."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/unit", "-q", "-n", "logical", "--dist=loadgroup"],
        cwd=checkout.root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackproofError(
            f"failed:\n{done.stdout[-1500:]}", where="the unit tests", todo="Run make test-unit."
        )
    figures = {"unit_suite_s": round(time.perf_counter() - began, 1)}
    checked = checkout.root / "build" / "report" / "renders.json"
    if checked.exists():
        found = json.loads(checked.read_text(encoding="utf-8"))
        figures |= {"renders_checked": found["distinct"], "renders_checked_s": found["seconds"]}
    return figures


class _TimedStack(LocalStack):
    """A local stack that notes when each of its programs was ready."""

    ready_s: dict[str, float]

    def _wait_until_ready(self, starting: Iterable[Pod]) -> None:
        began = time.monotonic()
        self.ready_s = {}

        def wait(pod: Pod) -> None:
            super(_TimedStack, self)._wait_until_ready([pod])
            self.ready_s[pod.program] = time.monotonic() - began

        waiting = [threading.Thread(target=wait, args=(pod,)) for pod in starting]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join()


@benchmark
def stack(checkout: Checkout) -> Figures:
    """Start the local stack a few times, then prove three tenants' isolation on it."""
    started: list[float] = []
    ready: dict[str, list[float]] = defaultdict(list)
    figures: Figures = {}
    for start in range(_STARTS):
        with _TimedStack(Deployment.load(checkout)) as running:
            started.append(running.started_s)
            for program, seconds in running.ready_s.items():
                ready[program].append(seconds)
            if start == _STARTS - 1:
                figures = _proven([isolation.prove(running) for _ in range(_ROUNDS)])
    figures |= {f"start_{name}_s": round(statistics.median(s), 3) for name, s in ready.items()}
    return figures | {"start_stack_s": round(statistics.median(started), 3)}


def _proven(proofs: Sequence[isolation.Proof]) -> Figures:
    """Return the time to the verdict, and from an acknowledged export to being visible."""
    seen: dict[str, list[float]] = defaultdict(list)
    for proof in proofs:
        signals = {one.api: one.signal for one in proof.apis}
        for (api, _), look in proof.observations.controls.items():
            if look.own and api in signals:
                seen[signals[api].value].append(look.latency_ms)
    figures = {"verdict_3_tenants_s": round(statistics.median(p.duration_s for p in proofs), 2)}
    for signal, latencies in sorted(seen.items()):
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            figures[f"visible_{signal}_{name}_ms"] = round(quantile(latencies, share), 1)
    return figures


def about() -> str:
    """Return one line about the machine."""
    return f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores"
