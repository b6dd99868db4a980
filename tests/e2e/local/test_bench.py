"""The benchmarks that start stacks: each runs to its end, here with less to do."""

from __future__ import annotations

import pytest

from stackproof import bench
from stackproof.bench import local
from stackproof.repo.checkout import Checkout


@pytest.mark.parametrize(
    ("name", "less", "figures"),
    [
        ("gateway", {"_ASKED": 3}, {"read_ratio_gateway_to_direct", "gateway_cpu_per_request_ms"}),
        ("stack", {"_STARTS": 1, "_ROUNDS": 1}, {"start_to_verdict_3_tenants_s", "start_mimir_s"}),
    ],
)
def test_it_measures(
    name: str,
    less: dict[str, int],
    figures: set[str],
    checkout: Checkout,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number, value in less.items():
        assert value < getattr(local, number)
        monkeypatch.setattr(local, number, value)
    found = bench.BENCHMARKS[name](checkout)
    assert figures <= found.keys()
    assert all(value >= 0 for value in found.values()), found
