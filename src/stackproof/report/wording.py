"""Sentences that the page and the terminal share."""

from __future__ import annotations

from collections.abc import Sequence

from stackproof.isolation import Proof
from stackproof.isolation.verdict import Verdict, Violation, ViolationKind
from stackproof.wording import counted


def headline(proof: Proof) -> str:
    """Say in one sentence what the run has shown, and which programs are not the deployed ones."""
    others = ", ".join(str(program) for program in proof.programs if program.differs)
    return _shown(proof) + (f", with {others}" if others else "")


def _shown(proof: Proof) -> str:
    counts = proof.matrix.summary()
    size = f"{counted(len(proof.tenants), 'tenant')} by {counted(len(proof.signals), 'signal')}"
    took = f"in {proof.duration_s:.1f} s"
    if proof.verdict is Verdict.ISOLATED:
        return (
            f"{size}: {counted(counts['hidden'], 'pair')} proven apart through "
            f"{counted(len(proof.apis), 'read API')}, every owner sees its own, {took}"
        )
    if proof.verdict is Verdict.LEAKING:
        kinds = {violation.kind for violation in proof.violations}
        also = [
            text
            for kind, text in (
                (ViolationKind.NOT_REFUSED, "requests that had to be refused were answered"),
                (ViolationKind.FALLBACK, "telemetry lies under a tenant that nobody has"),
            )
            if kind in kinds
        ]
        leaks = counted(counts["leaks"], "cell shows", "cells show")
        return "; ".join([f"{size}: {leaks} somebody else's data", *also]) + f", {took}"
    unproven = "" if proof.health else f", {counted(len(proof.violations), 'thing')} missing"
    return f"{size}: no leak was seen, but not all is proven{unproven}, {took}"


def groups(violations: Sequence[Violation]) -> list[list[Violation]]:
    """Put violations together that differ in the API or the tenant only.

    A dead backend, or one that knows no tenants, breaks everything that it answers: that is one
    thing to know, not a hundred.
    """
    together: dict[tuple[object, ...], list[Violation]] = {}
    for each in violations:
        who = (each.reader, each.owners) if each.kind is ViolationKind.LEAK else ()
        together.setdefault((each.kind, each.signal, *who), []).append(each)
    return list(together.values())
