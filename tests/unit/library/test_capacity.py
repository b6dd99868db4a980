"""The capacity model is the published figures, multiplied out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackproof.backends.capacity import (
    ASSUMPTION,
    Given,
    Load,
    Need,
    distributed,
    one_node,
    shortages,
    too_big_for_one_node,
)
from stackproof.cli import main
from stackproof.errors import StackproofError

MILLION = Load(tenants=1, series=1_000_000, interval_s=40, queries_per_s=0, retention_days=10)


def _by_name(needs: tuple[Need, ...]) -> dict[str, Need]:
    return {f"{need.backend} {need.component}": need for need in needs}


def test_mimir_in_one_process() -> None:
    """By hand: 25,000 samples/s, a million series in memory once, a twentieth of a compactor."""
    need = _by_name(one_node(MILLION))["mimir all"]
    assert need.cores[0] == pytest.approx(1 + 1_000_000 / 300_000 + 0.05)
    assert need.memory_gb[0] == pytest.approx((1 + 2.5 * 10 / 3 + 4 * 0.05) * 1.5)
    blocks = 25_000 * 2 * 10 * 86_400 / 1e9
    assert need.disk_gb[0] == pytest.approx((blocks + 5 * 10 / 3 + 300 * 0.05) * 1.5)


def test_mimir_cluster() -> None:
    needs = _by_name(distributed(replace(MILLION, queries_per_s=100)))
    assert needs["mimir distributor"].cores[0] == pytest.approx(1)
    ingester = needs["mimir ingester"]
    assert ingester.cores[0] == pytest.approx(10), "three million series in memory, 300,000 a core"
    assert ingester.memory_gb[0] == pytest.approx(25 * 1.5)
    assert ingester.replicas == 3
    assert needs["mimir querier"].replicas == 10
    assert needs["mimir store-gateway"].disk_gb[0] == pytest.approx(13 * 1.5)


def test_tempo_cluster() -> None:
    """30 MB/s: a distributor takes 10, an ingester at worst 3, a querier at worst 1."""
    needs = _by_name(distributed(Load(tenants=1, traces_gb_per_day=30 * 86.4)))
    assert needs["tempo distributor"].replicas == 3
    assert needs["tempo ingester"].replicas == 10
    assert needs["tempo ingester"].memory_gb == (40, 200)
    assert needs["tempo querier"].replicas == 30


def test_loki_cluster_is_the_smallest_published() -> None:
    needs = [need for need in distributed(Load(tenants=1)) if need.backend == "loki"]
    assert sum(need.cores[0] for need in needs) == 38
    assert sum(need.memory_gb[0] for need in needs) == 59


def test_every_figure_has_a_source() -> None:
    for need in (*one_node(Load(tenants=3)), *distributed(Load(tenants=3))):
        assert any(source.startswith("https://grafana.com/docs/") for source in need.sources)
    uncertain = {need.backend for need in one_node(Load(tenants=3)) if ASSUMPTION in need.sources}
    assert uncertain == {"loki", "tempo"}


def test_one_node_is_too_small() -> None:
    assert too_big_for_one_node(Load(tenants=3), 8, 28) == ()
    cores, memory = too_big_for_one_node(Load(tenants=3, series=1_000_000), 8, 28)
    assert "cores together, the node gives 8" in cores
    assert "GB of memory, the node gives 28" in memory
    (logs,) = too_big_for_one_node(Load(tenants=21), 8, 28)
    assert "21 GB of logs a day" in logs


def test_shortages() -> None:
    need = Need(
        backend="loki",
        component="all",
        replicas=1,
        cores=(0.5, 1),
        memory_gb=(2, 2),
        disk_gb=(5, 50),
        sources=(),
    )
    assert shortages(need, Given(1, 2, 50)) == ()
    assert shortages(need, Given(0.6, 1, 4)) == (
        "perhaps too little cores: 0.6, up to 1",
        "too little memory: 1 GB, it needs 2 GB or more",
        "too little disk: 4 GB, it needs 5 GB or more",
    )


@given(
    st.integers(1, 500),
    st.floats(0, 1e6),
    st.floats(0, 100),
    st.floats(0, 100),
    st.sampled_from(["tenants", "series", "logs_gb_per_day", "traces_gb_per_day", "queries_per_s"]),
)
def test_more_never_needs_less(
    tenants: int, series: float, logs: float, traces: float, what: str
) -> None:
    load = Load(tenants, series, logs, traces)
    more = replace(load, **{what: getattr(load, what) * 2})
    for needs in (one_node, distributed):
        for one, other in zip(needs(load), needs(more), strict=True):
            assert one.replicas <= other.replicas
            for figure in ("cores", "memory_gb", "disk_gb"):
                low, high = getattr(one, figure)
                assert low <= high
                assert low <= getattr(other, figure)[0] + 1e-9


@pytest.mark.parametrize("wrong", [{"tenants": 0}, {"interval_s": 0}, {"series": -1}])
def test_impossible_load(wrong: dict[str, int]) -> None:
    with pytest.raises(StackproofError, match="must"):
        Load(**{"tenants": 1, **wrong})


@pytest.mark.parametrize(("args", "code"), [(["--tenants", "3"], 0), (["--tenants", "90"], 1)])
def test_command(args: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["capacity", *args]) == code
    shown = capsys.readouterr().out
    assert ("One node is too small" in shown) is bool(code)
    assert "planning-capacity" in shown
    if code:
        assert "mimir has too little disk" in shown
