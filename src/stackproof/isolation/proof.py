"""What a run of the proof reports while it goes on, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from stackproof.model import EntryPoint, Signal
from stackproof.otlp.synthetic import Emission
from stackproof.repo.versions import RunningProgram

from .verdict import ApiResult, Finding, Matrix, Observations, Verdict, Violation


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: tasks done, and of how many (an estimate until the end is near)."""

    phase: str
    """What is not over yet: `telemetry`, then `controls`, then `absence`."""
    done: int
    total: int
    tenants: int
    """Tenants whose telemetry was sent so far."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The outcome of a run. `timings` are seconds from its start to the end of each phase.

    `emissions` and `observations` are what it rests on: who sent which tokens, and every look.
    """

    run_id: str
    started: datetime
    duration_s: float
    deadline_s: float
    """What each control, and each read after it, might take."""
    stack: str
    provider: str
    programs: tuple[RunningProgram, ...]
    tenants: tuple[str, ...]
    signals: tuple[Signal, ...]
    entry_point: EntryPoint
    verdict: Verdict
    matrix: Matrix
    apis: tuple[ApiResult, ...]
    violations: tuple[Violation, ...]
    checks: tuple[Finding, ...]
    health: tuple[str, ...]
    notes: tuple[str, ...]
    emissions: Mapping[str, Emission]
    observations: Observations
    timings: Mapping[str, float] = field(default_factory=dict)
    requests: int = 0
    exports: int = 0
    """Those that were taken: what the run has left in the backends."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """The most resident bytes that each component had."""
    log_errors: tuple[str, ...] = ()
    """What the components' logs say, where the verdict is not `isolated`."""
