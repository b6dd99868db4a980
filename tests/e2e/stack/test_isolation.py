"""Who sees whose telemetry: each read API, for each reader and each owner."""

from __future__ import annotations

import io
from itertools import combinations, permutations

import pytest
from rich.console import Console

from stackproof import report
from stackproof.backends import ESSENTIAL, PROVABLE, ReadApi
from stackproof.errors import StackproofError
from stackproof.isolation import Proof, prove
from stackproof.isolation.verdict import Observed, Verdict, through
from stackproof.model import FALLBACK_TENANTS, Backend, Signal
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import load_registry
from stackproof.stack.base import Stack

# All of these look at one proof of one stack.
pytestmark = pytest.mark.xdist_group("stack")

TENANTS = load_registry(Checkout.find()).names


def _why(proof: Proof, api: ReadApi, reader: str) -> str:
    about = [each for each in proof.violations if (each.api, each.reader) == (api.id, reader)]
    return "\n".join(map(str, about or proof.violations))


@pytest.mark.parametrize("reader", TENANTS)
@pytest.mark.parametrize("api", PROVABLE, ids=lambda api: api.id)
def test_reader_sees_its_own(api: ReadApi, reader: str, proof: Proof) -> None:
    seen = through(proof.observations, api, reader, reader)
    assert seen is Observed.VISIBLE, _why(proof, api, reader)


@pytest.mark.parametrize(("reader", "owner"), list(permutations(TENANTS, 2)))
@pytest.mark.parametrize("api", PROVABLE, ids=lambda api: api.id)
def test_reader_does_not_see_owners(api: ReadApi, reader: str, owner: str, proof: Proof) -> None:
    assert through(proof.observations, api, reader, owner) is Observed.HIDDEN, _why(
        proof, api, reader
    )


@pytest.mark.parametrize("tenant", FALLBACK_TENANTS, ids=lambda name: name or "empty")
@pytest.mark.parametrize("backend", list(Backend))
def test_nothing_is_stored_under_a_fallback_tenant(
    backend: Backend, tenant: str, proof: Proof, stack: Stack
) -> None:
    if not stack.disposable:
        pytest.skip("backends are not read directly here")
    if backend is Backend.TEMPO and not tenant:
        pytest.skip("Tempo answers no read for the empty tenant")
    (check,) = (
        each
        for each in proof.checks
        if each.name == "fallback tenant" and each.about == f"{backend} as {tenant!r}"
    )
    assert check.ok, check.detail


def test_the_verdict(proof: Proof) -> None:
    assert proof.verdict is Verdict.ISOLATED, "\n".join(map(str, proof.violations))
    pairs = len(TENANTS) * (len(TENANTS) - 1)
    counts = proof.matrix.summary()
    assert (counts["hidden"], counts["leaks"], counts["missing"]) == (pairs * 3, 0, 0)
    assert counts["visible"] == len(TENANTS) * 3


# --- a part of the whole ---


@pytest.mark.parametrize("tenant", TENANTS)
def test_one_tenant_alone_proves_nothing(tenant: str, stack: Stack) -> None:
    for named in ([tenant], [tenant, tenant]):
        with pytest.raises(StackproofError, match=f"nobody to keep {tenant} apart from"):
            prove(stack, named)


@pytest.mark.parametrize("two", list(combinations(TENANTS, 2)), ids="+".join)
def test_two_tenants(two: tuple[str, str], stack: Stack) -> None:
    assert prove(stack, two).verdict is Verdict.ISOLATED


@pytest.mark.parametrize("api", PROVABLE, ids=lambda api: api.id)
def test_one_read_api_says_nothing_of_other_signals(api: ReadApi, stack: Stack) -> None:
    proof = prove(stack, TENANTS[:2], apis=[api])
    assert proof.verdict is Verdict.ISOLATED, "\n".join(map(str, proof.violations))
    assert proof.signals == (api.signal,)
    others = ", ".join(signal for signal in Signal if signal is not api.signal)
    assert any(note.startswith(f"{others}: not compared") for note in proof.notes)
    for what, end, looked in (
        ("fallback tenants: not sought in ", ", without", api in ESSENTIAL),
        ("Grafana's data sources of ", ": not compared", api.federated and not api.pairwise),
    ):
        left = ", ".join(each for each in Backend if not (looked and each is api.backend))
        assert any(note.startswith(f"{what}{left}{end}") for note in proof.notes), proof.notes
    shown = io.StringIO()
    report.show(proof, Console(file=shown, width=200))
    assert f"({api.signal})" in shown.getvalue()


@pytest.mark.parametrize("signal", list(Signal))
def test_one_signal(signal: Signal, stack: Stack) -> None:
    proof = prove(stack, TENANTS[:2], signals=[signal])
    assert proof.verdict is Verdict.ISOLATED, "\n".join(map(str, proof.violations))


def test_without_a_read_api_there_is_nothing_to_prove(stack: Stack) -> None:
    with pytest.raises(StackproofError, match="no read API"):
        prove(stack, apis=[])
