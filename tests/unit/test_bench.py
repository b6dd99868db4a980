"""Figures of the benchmarks: written flat, kept where they are not measured again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stackproof import bench
from stackproof.checkout import Checkout


def test_figures_are_laid_over_those_that_are_there(tmp_path: Path) -> None:
    bench.write({"a_s": 1.0, "b_s": 2.0}, tmp_path)
    target = bench.write({"b_s": 3.0}, tmp_path)
    assert json.loads(target.read_text(encoding="utf-8")) == {"a_s": 1.0, "b_s": 3.0}


def test_quantiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [bench.quantile(values, share) for share in (0.5, 0.95, 0.99, 1)] == [50, 95, 99, 100]
    assert bench.quantile([7.0], 0.5) == 7
    assert bench.quantile([], 0.5) != bench.quantile([], 0.5)


def test_rendering_in_process_is_measured_beside_helm(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "_RENDERS", 4)
    monkeypatch.setattr(bench, "_HELM_RUNS", 2)
    figures = bench.BENCHMARKS["renders"](checkout)
    assert figures["renders_per_s_in_process"] > figures["renders_per_s_helm_program"] > 0
