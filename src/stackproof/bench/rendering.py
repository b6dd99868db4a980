"""Rendering charts, and the unit suite that does little else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stackproof.errors import StackproofError
from stackproof.helm import renderer
from stackproof.helm.renderer import Render
from stackproof.repo.checkout import Checkout
from stackproof.toolchain import programs
from stackproof.values.combinations import Space, scenarios

from .registry import Figures, benchmark

_RENDERS = 200
_HELM_RUNS = 12


@benchmark
def renders(checkout: Checkout) -> Figures:
    """Render both charts' permutations in process, and their scenarios by the helm program."""
    charts = sorted(file.parent for file in checkout.charts.glob("*/Chart.yaml"))
    asked = [one for chart in charts for one in _permuted(chart, _RENDERS // len(charts))]
    renderer.render_many(asked[:2], fresh=True)  # starts the program, loads the charts
    began = time.perf_counter()
    renderer.render_many(asked, fresh=True)
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
        Render(chart=chart, values=[space.given(choice)], release="one", namespace="here")
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
    """Run the unit tests as `make test-unit` does, and read off how many renders they checked."""
    checked = checkout.root / "build" / "report" / "renders.json"
    checked.unlink(missing_ok=True)  # an earlier run's
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
            f"failed:\n{(done.stdout + done.stderr)[-1500:]}",
            where="the unit tests",
            todo="Run make test-unit.",
        )
    figures = {"unit_suite_s": round(time.perf_counter() - began, 1)}
    if checked.exists():
        found = json.loads(checked.read_text(encoding="utf-8"))
        figures |= {"renders_checked": found["distinct"], "renders_checked_s": found["seconds"]}
    return figures
