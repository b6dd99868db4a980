"""Tenants against time and memory: the proof is of N² pairs and must cost N."""

from __future__ import annotations

import math
import os
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from stackproof import isolation
from stackproof.backends import ESSENTIAL
from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.isolation import Proof
from stackproof.isolation.verdict import Verdict
from stackproof.model import EntryPoint
from stackproof.repo.checkout import Checkout
from stackproof.stack.local import LocalStack
from stackproof.stack.process import peak_bytes
from stackproof.wording import counted

from .registry import Figures, benchmark, quantile

#: Numbers of tenants, each on a stack of its own. STACKPROOF_BENCH_TENANTS=3,30 for others.
SIZES = (3, 10, 30, 100, 300, 1000)


@benchmark
def tenants(checkout: Checkout) -> Figures:
    """Prove 3 to 1,000 tenants' isolation, each number on a new stack without Alloys."""
    deployment = Deployment.load(checkout)
    real = len(deployment.registry)
    figures: Figures = {}
    chosen = os.environ.get("STACKPROOF_BENCH_TENANTS")
    sizes = tuple(map(int, chosen.split(","))) if chosen else SIZES
    seconds: dict[int, float] = {}
    requests: dict[int, int] = {}
    for size in sizes:
        # Fewer than the registry has are the first of it.
        deployed = deployment.with_synthetic(max(size - real, 0))
        with LocalStack(deployed, alloys=False) as running:
            names = running.tenants[:size]
            proof = isolation.prove(
                running, names, apis=ESSENTIAL, entry_point=EntryPoint.GATEWAY, deadline_s=180
            )
            cpu = {name: running.process(name).cpu_s() for name in running.components}
        _must_be_isolated(proof, size)
        seconds[size], requests[size] = proof.duration_s, proof.requests
        figures |= _of(proof, size, cpu)
    if len(sizes) > 1:
        figures["growth_requests_exponent"] = round(exponent(requests), 3)
        figures["growth_seconds_exponent"] = round(exponent(seconds), 3)
    return figures


def _must_be_isolated(proof: Proof, size: int) -> None:
    if proof.verdict is not Verdict.ISOLATED:
        first = str(proof.violations[0]) if proof.violations else ", ".join(proof.health)
        raise StackproofError(
            f"{counted(size, 'tenant')} found {proof.verdict}: {first}",
            where="the benchmark `tenants`",
            todo=f"Run `stackproof prove --synthetic {size} --keep`.",
        )


def _of(proof: Proof, size: int, cpu: Mapping[str, float]) -> Figures:
    figures = {
        f"scale_{size}_tenants_s": round(proof.duration_s, 2),
        f"scale_{size}_requests": float(proof.requests),
        f"scale_{size}_memory_prover_mb": round(peak_bytes() / 1e6, 1),
        **{f"scale_{size}_memory_{n}_mb": round(b / 1e6, 1) for n, b in proof.memory.items()},
        **{f"scale_{size}_cpu_{name}_s": round(used, 2) for name, used in cpu.items()},
    }
    for signal, latencies in latencies_of([proof]).items():
        figures[f"scale_{size}_visible_{signal}_p50_ms"] = round(quantile(latencies, 0.5), 1)
        figures[f"scale_{size}_visible_{signal}_p95_ms"] = round(quantile(latencies, 0.95), 1)
    return figures


def latencies_of(proofs: Sequence[Proof]) -> dict[str, list[float]]:
    """Return for each signal how long every owner waited, through every API, to see its own."""
    seen: dict[str, list[float]] = defaultdict(list)
    for proof in proofs:
        signals = {one.api: one.signal for one in proof.apis}
        for (api, _), look in proof.observations.controls.items():
            if look.own and api in signals:
                seen[signals[api].value].append(look.latency_ms)
    return dict(sorted(seen.items()))


def exponent(values: Mapping[int, float]) -> float:
    """Return b of the line y = a + b x through the logarithms: 1 is linear growth, 2 quadratic.

    Only sizes from 100 on count where there are two: below it the fixed cost hides the growth.
    """
    big = {x: y for x, y in values.items() if x >= 100}
    of = big if len(big) > 1 else values
    sizes, costs = (list(map(math.log, each)) for each in (of.keys(), of.values()))
    return statistics.linear_regression(sizes, costs).slope
