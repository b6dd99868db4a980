"""Figures of the benchmarks: kept, compared with earlier ones, and drawn."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.copies import script

from stackproof import bench
from stackproof.bench import peers, rendering
from stackproof.bench.history import History, compare
from stackproof.bench.page import TARGETS
from stackproof.bench.scale import exponent
from stackproof.errors import StackproofError
from stackproof.repo.checkout import Checkout
from stackproof.repo.results import Provenance
from stackproof.report.plots import Series, decades, lines, spans, steps

OF = Provenance(tool="1", made="2026-01-01T00:00:00+00:00", commit="a" * 40, digests={"x": "1"})


def test_figures_are_laid_over_those_that_are_there(tmp_path: Path) -> None:
    bench.write("machine", {"a_s": 1.0, "b_s": 2.0}, tmp_path, OF)
    target = bench.write("renders", {"b_s": 3.0}, tmp_path, replace(OF, made="later"))
    found = json.loads(target.read_text(encoding="utf-8"))
    assert found["figures"] == bench.read(tmp_path) == {"a_s": 1.0, "b_s": 3.0}
    assert (found["whole"], found["measured"]) == (False, ["machine", "renders"])
    assert found["provenance"]["commit"] == OF.commit
    for name in bench.BENCHMARKS:
        bench.write(name, {}, tmp_path, OF)
    assert json.loads(target.read_text(encoding="utf-8"))["whole"]
    assert bench.read(tmp_path / "none") == {}


@pytest.mark.parametrize("changed", [{"commit": "b" * 40}, {"digests": {"x": "2"}}])
def test_figures_of_other_files_go(changed: dict[str, Any], tmp_path: Path) -> None:
    bench.write("machine", {"a_s": 1.0}, tmp_path, OF)
    bench.write("renders", {"b_s": 3.0}, tmp_path, replace(OF, **changed))
    assert bench.read(tmp_path) == {"b_s": 3.0}


def test_a_file_from_before_there_was_a_schema_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text('{"a_s": 1.0}')
    assert bench.read(tmp_path) == {}


def test_quantiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [bench.quantile(values, share) for share in (0.5, 0.95, 0.99, 1)] == [50, 95, 99, 100]
    assert bench.quantile([7.0], 0.5) == 7
    assert bench.quantile([], 0.5) != bench.quantile([], 0.5)


def test_rendering_in_process_is_measured_beside_helm(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "_RENDERS", 4)
    monkeypatch.setattr(rendering, "_HELM_RUNS", 2)
    figures = bench.BENCHMARKS["renders"](checkout)
    assert figures["renders_per_s_in_process"] > figures["renders_per_s_helm_program"] > 0


def test_the_renders_that_the_unit_suite_counted_are_this_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running the suite in itself would take as long as the suite: only its end is acted out."""
    report = tmp_path / "build" / "report" / "renders.json"
    report.parent.mkdir(parents=True)
    code, counted = 0, '{"distinct": 7, "seconds": 0.5}'

    def suite(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if counted:
            report.write_text(counted, encoding="utf-8")
        return subprocess.CompletedProcess(command, code, "assert 0", "")

    monkeypatch.setattr(subprocess, "run", suite)
    measure, checkout = bench.BENCHMARKS["unit-suite"], Checkout(tmp_path)
    assert {"renders_checked": 7, "renders_checked_s": 0.5}.items() <= measure(checkout).items()
    counted = ""  # what an earlier run counted is not this one's
    assert measure(checkout).keys() == {"unit_suite_s"}
    code = 1
    with pytest.raises(StackproofError, match=r"(?s)the unit tests: failed:.*assert 0"):
        measure(checkout)


def _only_kubeconform(folder: Path, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program of that name on PATH, and no other peer."""
    program = script(folder / "bin" / "kubeconform", says)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(peers, "PEERS", {"kubeconform": peers.PEERS["kubeconform"]})
    monkeypatch.setattr(peers, "_TURNS", 2)


def test_a_peer_is_measured_beside_stackproof_on_the_same_work(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ours = peers.PEERS["kubeconform"].work["validate"](checkout, tmp_path)
    valid, invalid = ours.do()
    assert valid > 500
    assert invalid == 1, "the wrong object among them is found"
    says = json.dumps({"summary": {"valid": valid, "invalid": invalid}})
    _only_kubeconform(tmp_path, f"sleep 0.1; echo '{says}'; exit 1", monkeypatch)
    figures = bench.BENCHMARKS["peers"](checkout)
    assert figures["peers_kubeconform_validate_s"] >= 0.1
    assert figures["peers_kubeconform_validate_stackproof_s"] > 0
    assert figures["peers_kubeconform_validate_ratio"] > 0


def test_the_charts_work_is_every_scenario(checkout: Checkout, tmp_path: Path) -> None:
    _, ours = peers.PEERS["helm-unittest"].work["test"](checkout, tmp_path)
    suites = [json.loads(file.read_text()) for file in tmp_path.glob("*/tests/*_test.yaml")]
    tests = [test for suite in suites for test in suite["tests"]]
    assert ours.do() == len(tests) == len(list(checkout.charts.glob("*/ci/*.yaml")))
    assert all(test["asserts"] for test in tests)


def test_the_trees_work_is_all_that_is_to_be_had_without_a_network(
    checkout: Checkout, tmp_path: Path
) -> None:
    _, ours = peers.PEERS["flate"].work["build"](checkout, tmp_path)
    found = ours.found(ours.do())
    assert isinstance(found, Counter)
    assert found["HelmRelease", "lgtm"] == 1
    assert found["StatefulSet", "mimir"] == 1, "releases are rendered"
    assert not any(kind == "HelmRepository" for kind, _ in found)
    assert ("Kustomization", "tenants") not in found, "the peers do not print it"


@pytest.mark.parametrize(
    ("peer", "kinds"),
    [
        ("flate", {"Kustomization", "HelmRelease", "ConfigMap", "Deployment", "Ingress"}),
        ("flux-local", {"ConfigMap", "Deployment", "Ingress"}),
    ],
)
def test_the_changes_work_is_one_tenants_host(
    peer: str, kinds: set[str], checkout: Checkout, tmp_path: Path
) -> None:
    _, ours = peers.PEERS[peer].work["diff"](checkout, tmp_path)
    found = ours.found(ours.do())
    assert isinstance(found, Counter)
    assert {kind for kind, _ in found} == kinds
    assert set(found.values()) == {1}


@pytest.mark.parametrize(
    ("says", "error"),
    [
        (
            """echo '{"summary": {"valid": 9, "invalid": 1}}'; exit 1""",
            r"kubeconform validate: found \(9, 1\), stackproof \(\d+, 1\): it is not the same work",
        ),
        ("echo there is no such flag >&2; exit 2", r"kubeconform: ends with 2:\nthere is no such"),
    ],
)
def test_a_peer_that_does_something_else_is_an_error(
    says: str, error: str, checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _only_kubeconform(tmp_path, says, monkeypatch)
    with pytest.raises(StackproofError, match=error):
        bench.BENCHMARKS["peers"](checkout)


def test_peers_that_are_not_there_are_left_out_and_told(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bench.BENCHMARKS["peers"](checkout) == {}
    told = bench.WITH["peers"]()
    assert told.startswith("left out: helm-unittest (not on PATH: helm-unittest; https://")
    assert "not on PATH: flux-local, flux, kustomize; pip install flux-local" in told
    script(tmp_path / "flux-local", "true")
    assert "not on PATH: flux, kustomize;" in bench.WITH["peers"](), "what it calls, too"


def test_a_peers_version_is_what_its_file_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    contents = {
        "pytest": f"#!{sys.executable}\n",
        "kubeconform": "\x7fELF\npath\texample.org/cmd\nmod\texample.org\tv0.8.0\th1:x=\n",
        "unsaid": "\x7fELF",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(peers, "PEERS", dict.fromkeys(contents, peers.PEERS["kubeconform"]))
    pytests = importlib.metadata.version("pytest")
    expected = f"peers: pytest {pytests}, kubeconform v0.8.0, unsaid of unknown version"
    assert bench.WITH["peers"]() == expected


def test_what_a_benchmark_was_measured_with_is_kept(tmp_path: Path) -> None:
    bench.write("peers", {"a_s": 1.0}, tmp_path, OF, "peers: x v1")
    target = bench.write("machine", {}, tmp_path, OF)
    assert json.loads(target.read_text(encoding="utf-8"))["with"] == {"peers": "peers: x v1"}


def test_growth_is_told_from_quadratic() -> None:
    sizes = (3, 10, 100, 300, 1000)
    assert exponent({n: 5.0 * n for n in sizes}) == pytest.approx(1)
    assert exponent({n: 0.01 * n * n for n in sizes}) == pytest.approx(2)
    # What every run costs, however few the tenants, is no growth.
    assert exponent({n: 1 + 0.5 * n for n in sizes}) == pytest.approx(1, abs=0.05)
    assert exponent({3: 3.0, 10: 10.0}) == pytest.approx(1)


def test_runs_are_compared_in_the_measure_of_their_machines() -> None:
    then = {"yardstick_s": 0.2, "a_s": 1.0, "b_ms": 5.0, "c_per_s": 100.0, "d_mb": 10.0, "e": 1.0}
    # Half as fast a machine: everything takes twice as long, and that is no change.
    now = {"yardstick_s": 0.4, "a_s": 2.0, "b_ms": 20.0, "c_per_s": 50.0, "d_mb": 20.0, "f_s": 1.0}
    ratios = {each.name: each.ratio for each in compare(now, then)}
    assert ratios == {
        "a_s": 1,
        "b_ms": 2,
        "c_per_s": 1,
        "d_mb": 2,
        "yardstick_s": None,
        "f_s": None,
    }
    assert all(each.ratio is None for each in compare(now, {}))


def test_runs_are_recorded_a_line_each(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    assert history.runs() == []
    history.record({"a_s": 1.0})
    history.record({"a_s": 2.0})
    assert [run.figures["a_s"] for run in history.runs()] == [1.0, 2.0]
    with history.path.open("a", encoding="utf-8") as file:
        file.write('{"date": "today"}\n')
    with pytest.raises(StackproofError, match=r"jsonl:3: is not a recorded run"):
        history.runs()


def test_the_committed_history_can_be_read(checkout: Checkout) -> None:
    for run in History.of(checkout).runs():
        assert run.date
        assert all(isinstance(value, float | int) for value in run.figures.values())


FIGURES = {
    "cores": 2.0,
    "load_before": 0.1,
    "yardstick_s": 0.2,
    **{target.figure: target.limit / 2 for target in TARGETS},
    **{f"scale_{n}_tenants_s": n / 50 for n in (3, 100, 1000)},
    **{f"scale_{n}_memory_mimir_mb": float(n) for n in (3, 100, 1000)},
    **{f"visible_{s}_{p}_ms": 40.0 for s in ("traces", "logs") for p in ("p50", "p99")},
}


def test_the_page_shows_what_was_measured_and_whether_targets_are_met(tmp_path: Path) -> None:
    text = bench.page(FIGURES, [], OF)
    assert "commit aaaaaaaaaaaa, 2026-01-01" in text
    assert text.count("✔ yes") == len(TARGETS)
    assert "✘" not in text
    assert "Time to the verdict" in text
    assert "noisy" not in text, "what was not measured is left out"
    assert "src=" not in text
    late = bench.page({**FIGURES, "scale_1000_tenants_s": 25.0, "load_before": 9.0}, [], OF)
    assert late.count("✘ no") == 1
    assert "measure again on an idle one" in late
    history = History(tmp_path / "history.jsonl")
    history.record(FIGURES)
    history.record({**FIGURES, "scale_1000_tenants_s": 40.0})
    later = bench.page(FIGURES, history.runs(), OF)
    assert "Recorded runs" in later
    assert '<td class="number">40</td><td class="number">0.50</td>' in later
    assert bench.page({}, [], OF)


def test_ticks_are_round_and_hold_all() -> None:
    assert steps(0) == [0, 1]
    for most in (0.3, 1.0, 7.2, 48.0, 999.0, 12_345.0):
        ticks = steps(most)
        assert ticks[-1] >= most > ticks[-2]
        assert 3 <= len(ticks) <= 7
    assert decades(3, 1000) == [1, 10, 100, 1000]
    assert decades(1, 1) == [1, 10]


def test_plots_stay_within_their_frame_and_escape_names() -> None:
    drawn = lines(
        "<b>", [Series("<i>", [(1, 2), (10, 20)]), Series("x", [(1, 2)])], "x", "y", goal=5
    )
    assert "<i>" not in drawn
    assert "<b>" not in drawn
    assert drawn.count("<circle") == 3
    assert spans("t", [("a<b", 1.0, 3.0)], "ms").count("<circle") == 1
    assert lines("t", [], "x", "y") == ""
