"""Proofs of recorded shape, small and large, sound and with faults: what reports are tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache

from stackproof.backends import PROVABLE
from stackproof.backends.base import Request
from stackproof.isolation import Proof, pairs
from stackproof.isolation.verdict import Finding, Observation, Observations, Violation, judge
from stackproof.model import EntryPoint, Signal
from stackproof.repo.results import Provenance
from stackproof.repo.versions import RunningProgram

APIS = tuple(
    api
    for api in PROVABLE
    if api.id in {"mimir.query", "loki.query-range", "tempo.trace", "tempo.search-traceql"}
)
BY_ID = {api.id: api for api in APIS}


def make_look(
    api: str, reader: str, asked: str, *, own: bool = True, others: Iterable[str] = ()
) -> Observation:
    url = f"http://127.0.0.1:8080/prometheus/api/v1/query?q={api}"
    request = Request("GET", url, credential=f'--user "{reader}:$PASSWORD"')
    return Observation(
        api=api,
        reader=reader,
        asked=asked,
        own=own,
        others=frozenset(others),
        answered=True,
        request=request,
        answer="HTTP 200: {}",
        elapsed_ms=4.0,
        latency_ms=600.0,
    )


def make_proof(
    tenants: Iterable[str],
    *,
    leaks: Iterable[tuple[str, str, str]] = (),
    missing: Iterable[tuple[str, str]] = (),
    health: Iterable[str] = (),
    faults: Iterable[Violation] = (),
    checks: Iterable[Finding] = (),
) -> Proof:
    """A proof from observations: `leaks` are (api, reader, owner), `missing` (api, tenant)."""
    names, lost = tuple(tenants), set(missing)
    asked = pairs(names)
    controls = {
        (api.id, name): make_look(api.id, name, name, own=(api.id, name) not in lost)
        for api in APIS
        for name in names
    }
    absences = {
        (api.id, name, name): make_look(api.id, name, name, own=(api.id, name) not in lost)
        for api in APIS
        for name in names
    } | {
        (api.id, reader, owner): make_look(api.id, reader, owner, own=False)
        for api in APIS
        if api.pairwise
        for reader, owner in asked
    }
    seen = Observations(
        tenants=names,
        apis=APIS,
        controls=controls,
        absences=absences,
        leaks=[make_look(api, reader, reader, others=[owner]) for api, reader, owner in leaks],
        pairs=asked,
        faults=tuple(faults),
        health=tuple(health),
    )
    judgement = judge(seen)
    return Proof(
        run_id="0123456789abcdef",
        started=datetime(2026, 11, 23, 8, 0, tzinfo=UTC),
        duration_s=1.234,
        deadline_s=30.0,
        stack="synthetic observations of a unit test",
        provider="local",
        programs=(
            RunningProgram("loki", "3.7.8", "3.7.8"),
            RunningProgram("mimir", "3.0.5", "3.0.9", "no later Mimir is served as a Go module"),
        ),
        tenants=names,
        signals=tuple(Signal),
        entry_point=EntryPoint.ALLOY_GRPC,
        verdict=judgement.verdict,
        matrix=judgement.matrix,
        apis=judgement.apis,
        violations=judgement.violations,
        checks=tuple(checks),
        health=tuple(health),
        notes=(),
        emissions={},
        observations=seen,
        timings={"telemetry_s": 0.1, "proof_s": 1.2},
        requests=320,
    )


#: Of what the recorded proofs are.
OF = Provenance(
    tool="0.1.0", made="2026-01-31T12:00:00+00:00", commit="0123456789" * 4, dirty=False
)
THREE = ("soev", "enterprise-a", "enterprise-b")
THOUSAND = tuple(f"tenant-{index:04}" for index in range(1000))

PROOFS: Mapping[str, Callable[[], Proof]] = {
    "isolated": lambda: make_proof(THREE),
    "leaking": lambda: make_proof(THREE, leaks=[("loki.query-range", "enterprise-a", "soev")]),
    "incomplete": lambda: make_proof(
        THREE, missing=[("mimir.query", "soev")], health=["mimir: exited with signal 9"]
    ),
    "isolated-1000": lambda: make_proof(THOUSAND),
    "leaking-1000": lambda: make_proof(
        THOUSAND,
        leaks=[("mimir.query", THOUSAND[700], THOUSAND[123])],
        missing=[("loki.query-range", name) for name in THOUSAND[400:420]],
    ),
}


@cache
def recorded(name: str) -> Proof:
    return PROOFS[name]()
