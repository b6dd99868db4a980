"""Whoever may not read or write is refused, and no answer to him holds anybody's token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stackproof.backends import PROVABLE, Client, ReadApi, poll
from stackproof.isolation import Marks, Proof, intruders, question
from stackproof.model import TENANT_HEADER, Access, EntryPoint, Signal
from stackproof.otlp import senders, synthetic
from stackproof.otlp.senders import ExportError, HttpSender
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import load_registry
from stackproof.stack.base import Stack

pytestmark = pytest.mark.xdist_group("stack")

TENANTS = load_registry(Checkout.find()).names
INTRUDERS = list(intruders(Access("somebody", {}, ("somebody", "x")), "other"))


@pytest.fixture(autouse=True)
def _gateway(stack: Stack) -> None:
    if stack.gateway_url is None:
        pytest.skip("the deployment has no gateway")


@pytest.mark.parametrize("intruder", INTRUDERS)
@pytest.mark.parametrize("api", PROVABLE, ids=lambda api: api.id)
def test_reading_is_refused(
    api: ReadApi, intruder: str, stack: Stack, proof: Proof, client: Client
) -> None:
    marks = Marks(proof.emissions)
    for tenant in TENANTS:
        other = TENANTS[TENANTS.index(tenant) - 1]
        access = intruders(stack.reader(tenant), other)[intruder]
        answer = client.ask(api, access, question(proof.emissions[other]))
        assert answer.status in {401, 403}, answer.describe()
        assert marks.find(answer.body, api.mark) == {}, answer.describe()


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize("intruder", INTRUDERS)
def test_writing_is_refused_and_nothing_is_stored(
    signal: Signal, intruder: str, stack: Stack, client: Client
) -> None:
    tenant, other = TENANTS[0], TENANTS[1]
    access = intruders(stack.reader(tenant), other)[intruder]
    exporter = HttpSender(
        f"{stack.gateway_url}/otlp", auth=access.auth, headers=access.headers, pool=client.pool
    )
    refused = synthetic.new_emission(tenant, synthetic.new_run(), [signal])
    # 503: a known account may have a new password that the gateway learns in a moment.
    with pytest.raises(ExportError, match=r"refused with HTTP (40[13]|503)"):
        exporter.send(signal, synthetic.make(refused, signal))
    # The control: the same telemetry in the same way, with the right credential.
    with_right = stack.sender(tenant, EntryPoint.GATEWAY, client)
    accepted = senders.emit(with_right, tenant, refused.run, signals=[signal])
    marks = Marks({tenant: accepted, "refused": refused})
    (api,) = (
        each
        for each in PROVABLE
        if each.id in {"mimir.query", "loki.query-range", "tempo.search-traceql"}
        and each.signal is signal
    )

    for reader in (stack.reader(tenant), stack.admin_reader(TENANTS)):

        def look(reader: Access = reader) -> tuple[set[str] | None, str]:
            answer = client.ask(api, reader, question(accepted))
            owners = {owner for owner, _ in marks.find(answer.body).values()}
            return owners or None, answer.describe()

        assert poll(look, 20, f"{api.id} as {reader.name}") == {tenant}


def test_the_admin_names_known_tenants_only(stack: Stack, proof: Proof, client: Client) -> None:
    admin = stack.admin_reader(TENANTS)
    marks = Marks(proof.emissions)
    for header in ("", "enterprise-.*", "soev|enterprise-.*", "soev|", "|", "soev:x", "anonymous"):
        headers = {**admin.headers, TENANT_HEADER: header} if header else {}
        for api in PROVABLE:
            answer = client.ask(
                api, replace(admin, headers=headers), question(proof.emissions[TENANTS[0]])
            )
            assert answer.status in {401, 403}, f"{header!r}: {answer.describe()}"
            assert marks.find(answer.body, api.mark) == {}


def test_the_admin_writes_nothing(stack: Stack, client: Client) -> None:
    admin = stack.admin_reader(TENANTS[:1])
    exporter = HttpSender(
        f"{stack.gateway_url}/otlp", auth=admin.auth, headers=admin.headers, pool=client.pool
    )
    for signal in Signal:
        with pytest.raises(ExportError, match=r"refused with HTTP 40[34]"):
            senders.emit(exporter, "admin", synthetic.new_run(), signals=[signal])


def test_a_point_that_the_backend_drops_is_an_error_although_the_status_is_200(
    stack: Stack, proof: Proof, client: Client
) -> None:
    tenant = proof.tenants[0]
    emission = synthetic.new_emission(tenant, synthetic.new_run())
    request: Any = synthetic.make(emission, Signal.METRICS)
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            point.time_unix_nano -= 6 * 3600 * 10**9
    with pytest.raises(ExportError, match=r"rejected \d+ items? of the metrics: .*[a-z]{3}"):
        stack.sender(tenant, EntryPoint.GATEWAY, client).send(Signal.METRICS, request)


def test_nobody_listens() -> None:
    with pytest.raises(ExportError, match="export failed"):
        senders.emit(HttpSender("http://127.0.0.1:9/otlp"), "soev", "run")
    with (
        senders.GrpcSender("127.0.0.1:9") as exporter,
        pytest.raises(ExportError, match="UNAVAILABLE"),
    ):
        senders.emit(exporter, "soev", "run")
