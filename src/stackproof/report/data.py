"""The machine-readable results of a proof.

`isolation.json` holds what others rely on, and only that; `evidence.json` beside it what a person
needs to follow it: per API, per violation, per further check.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stackproof.backends import READ_APIS
from stackproof.isolation import Proof
from stackproof.isolation.verdict import Cell, Verdict, Violation, ViolationKind
from stackproof.junit import Case
from stackproof.repo import results
from stackproof.repo.results import Provenance

from .wording import headline

_EXTRAS = ("attacks", "twins", "mutants", "coverage", "upgrade")

#: Up to this many tenants every cell is listed, beyond it only those that are not as expected.
ALL_CELLS = 20
#: At most this many cells are listed; the summary counts them all.
MOST_CELLS = 10_000


@dataclass(frozen=True, slots=True)
class Extras:
    """Results of other commands, shown with the proof; each is what its JSON file holds.

    `stale` says of those that are of other files than the proof of which they are; they prove
    nothing of it.
    """

    attacks: Sequence[Mapping[str, Any]] = ()
    twins: Sequence[Mapping[str, Any]] = ()
    mutants: Mapping[str, Any] = field(default_factory=dict)
    coverage: Mapping[str, Any] = field(default_factory=dict)
    upgrade: Mapping[str, Any] = field(default_factory=dict)
    stale: Mapping[str, str] = field(default_factory=dict)


def read_extras(directory: Path, of: Provenance) -> Extras:
    """Read what other commands left in the report's directory; what is not there is left out."""
    read = {name: results.read(directory / f"{name}.json") for name in _EXTRAS}
    found = {name: result.found if result else {} for name, result in read.items()}
    return Extras(
        attacks=found["attacks"].get("attacks", ()),
        twins=found["twins"].get("twins", ()),
        mutants=found["mutants"],
        coverage=found["coverage"],
        upgrade=found["upgrade"],
        stale={
            name: f"{result.of.source}, of {result.of.made[:10]}"
            for name, result in read.items()
            if result and not result.of.same_source(of)
        },
    )


def _cell(cell: Cell) -> dict[str, Any]:
    latency = cell.latency_ms
    return {
        "reader": cell.reader,
        "owner": cell.owner,
        "signal": cell.signal.value,
        "expected": cell.expected.value,
        "observed": cell.observed.value,
        "latency_ms": None if latency is None else round(latency, 1),
    }


def isolation_json(proof: Proof, attacks: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return the contents of `isolation.json`: the contract with whoever gates on it."""
    few = len(proof.tenants) <= ALL_CELLS
    cells = proof.matrix.cells() if few else proof.matrix.exceptions()
    return {
        "run_id": proof.run_id,
        "started": proof.started.isoformat(timespec="milliseconds"),
        "duration_s": round(proof.duration_s, 3),
        "target": proof.stack,
        "stack": {
            "provider": proof.provider,
            "versions": {program.name: program.version for program in proof.programs},
        },
        "tenants": list(proof.tenants),
        "signals": [signal.value for signal in proof.signals],
        "summary": proof.matrix.summary(),
        "cells": [_cell(cell) for cell in itertools.islice(cells, MOST_CELLS)],
        "attacks": [dict(attack) for attack in attacks],
        "verdict": proof.verdict.value,
    }


def _violation(violation: Violation) -> dict[str, Any]:
    return {
        "kind": violation.kind.value,
        "message": violation.message,
        "api": violation.api,
        "signal": violation.signal.value if violation.signal else None,
        "reader": violation.reader,
        "owners": list(violation.owners),
        "request": violation.request,
        "answer": violation.answer,
        "reproduce": violation.curl,
    }


def evidence_json(proof: Proof) -> dict[str, Any]:
    """Return the contents of `evidence.json`: what the verdict rests on."""
    return {
        "run_id": proof.run_id,
        "stack": proof.stack,
        "entry_point": proof.entry_point.value,
        "deadline_s": proof.deadline_s,
        "requests": proof.requests,
        "programs": [{**asdict(each), "differs": each.differs} for each in proof.programs],
        "memory_bytes": dict(proof.memory),
        "timings_s": {name: round(value, 3) for name, value in proof.timings.items()},
        "health": list(proof.health),
        "log_errors": list(proof.log_errors),
        "notes": list(proof.notes),
        "violations": [_violation(violation) for violation in proof.violations],
        "apis": [{**asdict(api), "signal": api.signal.value} for api in proof.apis],
        "excluded": {api.id: api.excluded for api in READ_APIS if api.excluded},
        "checks": [{**asdict(check), "ok": check.ok} for check in proof.checks],
    }


def cases(proof: Proof) -> Iterator[Case]:
    """Yield a case for each read API and each further check, and one for the verdict."""
    for api in proof.apis:
        mine = [each for each in proof.violations if each.api == api.api]
        yield Case(
            f"isolation.{api.signal}",
            api.api,
            [str(each) for each in mine if each.kind is ViolationKind.LEAK],
            [str(each) for each in mine if each.kind is ViolationKind.MISSING],
        )
    # What of the violations is no leak and nothing missing is told by these.
    for check in proof.checks:
        name, told = f"{check.name}: {check.about}", [f"{check.about}: {check.detail}"]
        leaking = check.kind is not None and check.kind.leaking
        yield Case(
            "isolation.check", name, told if leaking else (), () if check.ok or leaking else told
        )
    told = [f"{proof.verdict}: {headline(proof)}", *proof.health]
    yield Case(
        "isolation",
        "verdict",
        told if proof.verdict is Verdict.LEAKING else (),
        told if proof.verdict is Verdict.INCOMPLETE else (),
        proof.duration_s,
    )
