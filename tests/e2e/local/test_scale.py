"""Many tenants, made for the run: proven with reads that grow as they do, and a leak among them."""

from __future__ import annotations

import pytest

from stackproof import isolation
from stackproof.backends import ESSENTIAL
from stackproof.flux.deployment import Deployment
from stackproof.isolation import Progress, Proof
from stackproof.isolation.verdict import Verdict, ViolationKind
from stackproof.model import EntryPoint
from stackproof.repo.checkout import Checkout
from stackproof.stack.local import LocalStack
from stackproof.twins import Edit, Layer, Twin

pytestmark = [pytest.mark.needs_restart, pytest.mark.xdist_group("scale")]


def _prove(deployment: Deployment, seen: list[Progress] | None = None) -> Proof:
    with LocalStack(deployment, alloys=False) as stack:
        assert not [name for name in stack.components if "alloy" in name]
        return isolation.prove(
            stack,
            apis=ESSENTIAL,
            entry_point=EntryPoint.GATEWAY,
            on_progress=seen.append if seen is not None else None,
        )


def test_reads_grow_as_tenants_do_though_pairs_grow_as_their_square() -> None:
    deployment = Deployment.load(Checkout.find())
    real = len(deployment.registry)
    progress: list[Progress] = []
    proofs = {n: _prove(deployment.with_synthetic(n - real), progress) for n in (20, 60)}
    for size, proof in proofs.items():
        assert proof.verdict is Verdict.ISOLATED, "\n".join(map(str, proof.violations[:3]))
        assert proof.matrix.summary()["hidden"] == size * (size - 1) * 3
        reads = sum(api.reads for api in proof.apis)
        assert reads == size * len(ESSENTIAL)
        assert proof.memory.keys() == {"mimir", "loki", "tempo", "gateway"}
        assert any("to the gateway directly" in note for note in proof.notes)
    done = [each.done for each in progress if each.total]
    assert all(each.done <= each.total for each in progress)
    assert done, "a run says how far it is"


def test_a_leak_among_many_is_found() -> None:
    twin = Twin(
        name="two-are-one",
        fault="the gateway takes one tenant for another",
        layer=Layer.LOCAL,
        caught_by="isolation",
        reason=".",
        edits=[
            Edit(
                "charts/lgtm/templates/gateway.yaml",
                "vars @tenant tenant {http.auth.user.id}",
                "vars @tenant tenant {http.auth.user.id}\n"
                "\t\t@mixed vars {http.auth.user.id} synthetic-0007\n"
                "\t\tvars @mixed tenant synthetic-0013",
            )
        ],
    )
    with twin.deployment(Checkout.find()) as broken:
        proof = _prove(broken.with_synthetic(25))
    assert proof.verdict is Verdict.LEAKING
    leaks = {(v.reader, *v.owners) for v in proof.violations if v.kind is ViolationKind.LEAK}
    assert leaks == {("synthetic-0007", "synthetic-0013"), ("synthetic-0013", "synthetic-0007")}
    assert proof.matrix.summary()["leaks"] == 2 * 3
