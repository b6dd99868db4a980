"""Each data source shows exactly whose telemetry it is for, asked just as Grafana would."""

from __future__ import annotations

import pytest

from stackproof.backends import PROVABLE, Client, ReadApi, grafana
from stackproof.isolation import Marks, Proof, question
from stackproof.model import STACK_TENANT, Backend
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import load_registry
from stackproof.stack.base import Stack

pytestmark = pytest.mark.xdist_group("stack")

TENANTS = load_registry(Checkout.find()).names
#: The stack's own: it sends no traces.
STACK = [f"{backend}-{STACK_TENANT}" for backend in Backend if backend is not Backend.TEMPO]
UIDS = [f"{backend}{suffix}" for backend in Backend for suffix in ("", *(f"-{t}" for t in TENANTS))]
VIEWS = [api for api in PROVABLE if api.federated and not api.pairwise]


@pytest.fixture(scope="module")
def sources(stack: Stack) -> dict[str, grafana.DataSource]:
    return {source.uid: source for source in grafana.sources(stack.data_sources())}


def test_there_is_one_for_each_tenant_and_one_for_all(
    sources: dict[str, grafana.DataSource],
) -> None:
    assert sorted(sources) == sorted((*UIDS, *STACK))


@pytest.mark.parametrize("uid", [*UIDS, *STACK])
def test_it_shows_what_it_is_for(
    uid: str, proof: Proof, sources: dict[str, grafana.DataSource], client: Client
) -> None:
    source = sources[uid]
    tenant = uid.partition("-")[2]
    # The stack's own metrics and logs are no tenant's.
    expected = {tenant} & set(TENANTS) if tenant else set(TENANTS)
    marks = Marks(proof.emissions)
    emission = proof.emissions[TENANTS[0]]
    for api in VIEWS:
        if api.backend is source.backend:
            answer = client.ask(api, source.access, question(emission))
            shown = {owner for owner, _ in marks.find(answer.body, api.mark).values()}
            assert shown == expected, f"{api.id}: {answer.describe()}"


@pytest.mark.parametrize("api", VIEWS, ids=lambda api: api.id)
def test_the_view_of_all_tenants_is_the_union_every_time(
    api: ReadApi, proof: Proof, sources: dict[str, grafana.DataSource], client: Client
) -> None:
    # loki#24310: a query for several tenants lost an interval now and then.
    source = sources[str(api.backend)]
    marks = Marks(proof.emissions)
    for turn in range(20):
        answer = client.ask(api, source.access, question(proof.emissions[TENANTS[0]]))
        shown = {owner for owner, _ in marks.find(answer.body, api.mark).values()}
        assert shown == set(TENANTS), f"turn {turn}: {answer.describe()}"


@pytest.mark.parametrize("api", [api for api in PROVABLE if api.pairwise], ids=lambda api: api.id)
@pytest.mark.parametrize("owner", TENANTS)
def test_the_view_of_all_tenants_finds_everybodys_trace(
    api: ReadApi, owner: str, proof: Proof, sources: dict[str, grafana.DataSource], client: Client
) -> None:
    answer = client.ask(api, sources["tempo"].access, question(proof.emissions[owner]))
    shown = {each for each, _ in Marks(proof.emissions).find(answer.body).values()}
    assert shown == {owner}, answer.describe()
