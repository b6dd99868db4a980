"""The stack's own health: every panel shows the administrator something, and nobody else reads it.

The monitor runs as rendered: it scrapes the backends and the gateway and writes to Mimir. What can
go wrong is made to go wrong, so that the panels of refusals and errors have something to show.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from tests.disks import full, small_disk

from stackproof.backends import PROVABLE, Client, grafana, poll
from stackproof.bench.workload import make
from stackproof.checks import alerts, dashboards
from stackproof.checks.dashboards import STACK_SOURCE, Query
from stackproof.flux.deployment import Deployment
from stackproof.isolation.delivery import numbered
from stackproof.isolation.verdict import Verdict
from stackproof.model import STACK_TENANT, TENANT_HEADER, Backend, EntryPoint, Signal
from stackproof.otlp import senders, synthetic
from stackproof.otlp.senders import ExportError
from stackproof.repo.checkout import Checkout
from stackproof.stack.local import LocalStack

pytestmark = [pytest.mark.needs_restart, pytest.mark.xdist_group("monitor")]

DEPLOYMENT = Deployment.load(Checkout.find())
(DASHBOARD,) = (each for each in dashboards.read(DEPLOYMENT.lgtm()) if each.uid == "stack")
KEPT = dashboards.kept(DEPLOYMENT.lgtm())
#: Rates need two scrapes, 15 s apart; Tempo's generator writes after 15 s; some are slower.
PATIENCE_S = 120
_HOUR_NS = 3600 * 10**9


#: The rules, and what of them fires while all is well: filled when the stack has just started.
CANARY = {"canary": {"enabled": True, "metricsTenant": "soev", "image": {"tag": "1.0.0"}}}
ALL_RULES = alerts.read(DEPLOYMENT.with_values(lgtm=[CANARY]).lgtm())
RULES = {rule.uid: rule for rule in ALL_RULES if rule.source.startswith(Backend.MIMIR)}
(UNCUT,) = (rule for rule in ALL_RULES if rule.source.startswith(Backend.LOKI))
CANARY_TENANT = "soev"
CALM: dict[str, list[Any]] = {}
#: The alerts on what is refused, by the label that says whose it was; and what of them fires when
#: something was refused for the first time since the backends started.
REFUSALS = {
    "samples-are-refused": "user",
    "lines-are-refused": "tenant",
    "spans-are-refused": "tenant",
}
REFUSED_ONCE: dict[str, list[Any]] = {}


@pytest.fixture(scope="module")
def monitored(client: Client) -> Iterator[LocalStack]:
    with LocalStack(DEPLOYMENT, alloys=False, monitor=True) as stack:
        _send_again(stack, client)
        _clean(stack, client)
        _poll(stack, client, "up == 1", {"instance": stack.components})
        _clean(stack, client)
        CALM.update({uid: _firing(stack, client, uid) for uid in RULES})
        # What a counter held when it was first seen is no rate: only what comes after it.
        _use(stack, client)
        _scraped(stack, client)
        REFUSED_ONCE.update({uid: _firing(stack, client, uid) for uid in REFUSALS})
        _use(stack, client)
        _scraped(stack, client)  # before a test ends one of them, and what it has counted
        yield stack


def _clean(stack: LocalStack, client: Client) -> None:
    """Send what is taken: telemetry of every tenant, the canary's verdict, half-full volumes."""
    for tenant in stack.tenants:
        with stack.sender(tenant, EntryPoint.GATEWAY, client) as exporter:
            for signal in Signal:
                exporter.send(signal, make(tenant, signal, 5, 5.0, 1)[0])
    _verdict(stack, Verdict.ISOLATED)
    _volume(stack, client, used=0.5)


def _send_again(stack: LocalStack, client: Client) -> None:
    """Send what an Alloy that starts does: after the newest line of a stream one that is old."""
    for tenant in stack.tenants:
        with stack.sender(tenant, EntryPoint.GATEWAY, client) as exporter:
            run, now = synthetic.new_run(), time.time_ns()
            exporter.send(Signal.LOGS, numbered(Signal.LOGS, tenant, run, 1, now))
            with pytest.raises(ExportError, match="too far behind"):
                exporter.send(
                    Signal.LOGS, numbered(Signal.LOGS, tenant, run, 2, now - 3 * _HOUR_NS)
                )


def _gauge(name: str, value: float, attributes: Mapping[str, str]) -> Any:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=name)
    point = metric.gauge.data_points.add(as_double=value, time_unix_nano=time.time_ns())
    for key, text in attributes.items():
        point.attributes.add(key=key).value.string_value = text
    return request


def _verdict(stack: LocalStack, verdict: Verdict, tenant: str = CANARY_TENANT) -> None:
    """Send what the canary sends (report.metrics), as the tenant that it sends it as."""
    access = stack.reader(tenant)
    isolated = float(verdict is Verdict.ISOLATED)
    with senders.HttpSender(f"{stack.gateway_url}/otlp", auth=access.auth) as exporter:
        exporter.send(Signal.METRICS, _gauge("stackproof.isolated", isolated, {}))
        for each in Verdict:
            attributes = {"verdict": each.value}
            one = _gauge("stackproof.verdict", float(each is verdict), attributes)
            exporter.send(Signal.METRICS, one)


def _as_the_monitor(stack: LocalStack, client: Client, request: Any) -> None:
    """Write into the stack's own metrics what a cluster's monitor would: there is none here."""
    url = stack.backend_url(Backend.MIMIR).removesuffix("/prometheus")
    headers = {TENANT_HEADER: STACK_TENANT}
    with senders.HttpSender(f"{url}/otlp", headers=headers, pool=client.pool) as exporter:
        exporter.send(Signal.METRICS, request)


def _volume(stack: LocalStack, client: Client, used: float) -> None:
    labels = {"persistentvolumeclaim": "data-mimir-0", "namespace": "observability"}
    for name, value in (("used", used * 1e10), ("capacity", 1e10)):
        metric = f"kubelet_volume_stats_{name}_bytes"
        _as_the_monitor(stack, client, _gauge(metric, value, labels))


def _firing(
    stack: LocalStack, client: Client, uid: str, canary_tenant: str = CANARY_TENANT
) -> list[Any]:
    """Return the series for which a rule fires: its query, and its threshold over it."""
    rule = RULES[uid]
    asked = rule.source.replace(CANARY_TENANT, canary_tenant)
    (source,) = (s for s in grafana.sources(stack.data_sources()) if s.uid == asked)
    now = str(int(time.time()) + 1)
    result = _ask(client, source, "query", query=rule.expr, time=now)["result"]
    (limit,) = (s["model"]["conditions"][0] for s in rule.record["data"] if s["refId"] == "fires")
    above = float(limit["evaluator"]["params"][0])
    if not result and rule.record["noDataState"] == "Alerting":
        return [{"alertname": "DatasourceNoData"}]
    return [each["metric"] for each in result if float(each["value"][1]) > above]


def _fires(stack: LocalStack, client: Client, uid: str, **labels: str) -> None:
    def look() -> tuple[bool | None, str]:
        firing = _firing(stack, client, uid)
        meant = any(labels.items() <= each.items() for each in firing)
        return (True if meant else None), f"fires for {firing}, not for {labels}"

    poll(look, PATIENCE_S, uid)


def _use(stack: LocalStack, client: Client) -> None:
    """Send what is taken, what is refused, and traces that are too large to be kept."""
    for tenant in stack.tenants:
        with stack.sender(tenant, EntryPoint.GATEWAY, client) as exporter:
            for signal in Signal:
                exporter.send(signal, make(tenant, signal, 5, 5.0, 1)[0])
            for signal in (Signal.METRICS, Signal.LOGS):
                late = numbered(
                    signal, tenant, synthetic.new_run(), 1, time.time_ns() - 200 * 24 * _HOUR_NS
                )
                with pytest.raises(ExportError):
                    exporter.send(signal, late)
            big = synthetic.new_emission(tenant, "big")
            for number in range(7):
                exporter.send(Signal.TRACES, _part(big, number, 500))


def _part(emission: synthetic.Emission, number: int, count: int) -> Any:
    """Return a part of a trace that is larger than Tempo keeps (5 MB): spans of long attributes."""
    message: Any = synthetic.make(emission, Signal.TRACES)
    (scope, *_) = message.resource_spans[0].scope_spans
    span = scope.spans[0]
    for each in range(count):
        copy = scope.spans.add()
        copy.CopyFrom(span)
        copy.span_id = (number * count + each + 1).to_bytes(8, "big")  # none is all zeros
        copy.attributes.add(key="filler").value.string_value = "x" * 1700
    return message


def _source(stack: LocalStack) -> grafana.DataSource:
    (source,) = (s for s in grafana.sources(stack.data_sources()) if s.uid == STACK_SOURCE)
    return source


def _ask(client: Client, source: grafana.DataSource, path: str, **params: str) -> Any:
    return client.data(source.access, source.backend, f"/api/v1/{path}", params)["data"]


def _poll(
    stack: LocalStack, client: Client, query: str, wanted: Mapping[str, Iterable[str]]
) -> None:
    """Ask until the answer's series have these values of these labels, and values that are drawn.

    What is waited for is what is meant: a number of series would be reached by others as well.
    """
    source = _source(stack)

    def look() -> tuple[bool | None, str]:
        now = str(int(time.time()) + 1)
        result = _ask(client, source, "query", query=query, time=now)["result"]
        drawn = [each["metric"] for each in result if each["value"][1] not in {"NaN", "0"}]
        missing = {
            label: sorted(set(values) - {each.get(label) for each in drawn})
            for label, values in wanted.items()
        }
        shown = bool(drawn) and not any(missing.values())
        return (True if shown else None), f"missing {missing} in {json.dumps(result)[:300]}"

    poll(look, PATIENCE_S, query)


def _scraped(stack: LocalStack, client: Client) -> None:
    """Wait until everything has been scraped since now: an earlier scrape shows nothing new."""
    since = f"timestamp(up) > {time.time():.3f}"
    _poll(stack, client, f"up == 1 and {since}", {"instance": stack.components})


#: What is nothing where all is well: the expression must be answered, with whatever it is.
MAY_BE_ZERO = {"Share of server errors"}


@pytest.mark.parametrize("query", DASHBOARD.queries, ids=lambda q: f"{q.panel}: {q.text}"[:60])
def test_no_panel_is_empty(query: Query, monitored: LocalStack, client: Client) -> None:
    assert query.source == _source(monitored).uid
    text = dashboards.expand(query.text, {})
    if query.panel in MAY_BE_ZERO:
        text = f"({text}) + 1"
    by = [label for label in ("user", "tenant") if f"by ({label}" in text]
    _poll(monitored, client, text, dict.fromkeys(by, monitored.tenants))


def test_everything_that_runs_is_seen(monitored: LocalStack, client: Client) -> None:
    _poll(monitored, client, "up == 1", {"instance": monitored.components})


def test_nothing_else_is_kept(monitored: LocalStack, client: Client) -> None:
    names = _ask(client, _source(monitored), "label/__name__/values")
    assert set(names) <= KEPT, sorted(set(names) - KEPT)


def test_a_dead_backend_is_shown_as_down(monitored: LocalStack, client: Client) -> None:
    monitored.process("loki").kill()
    try:
        _poll(monitored, client, "(up == 0) + 1", {"instance": ["loki"]})
        _fires(monitored, client, "part-is-down", instance="loki")
    finally:
        monitored.restart("loki")


@pytest.mark.parametrize("backend", list(Backend))
def test_no_tenant_reads_it(backend: Backend, monitored: LocalStack, client: Client) -> None:
    tenant = monitored.tenants[0]
    reader = monitored.reader(tenant)
    asked = replace(reader, headers={TENANT_HEADER: STACK_TENANT})
    api = next(a for a in PROVABLE if a.backend is backend)
    path = api.path.replace("$trace_id", "ab")
    assert client.get(asked, backend, path, {}).status == 403
    # Nobody has its name and a password.
    stranger = replace(reader, auth=(STACK_TENANT, "x"), headers={})
    assert client.get(stranger, backend, path, {}).status == 401


@pytest.mark.parametrize("signal", list(Signal))
def test_nobody_writes_into_it_through_the_gateway(
    signal: Signal, monitored: LocalStack, client: Client
) -> None:
    reader = monitored.reader(monitored.tenants[0])
    with (
        senders.HttpSender(
            f"{monitored.gateway_url}/otlp",
            auth=reader.auth,
            headers={TENANT_HEADER: STACK_TENANT},
            pool=client.pool,
        ) as exporter,
        pytest.raises(ExportError, match="HTTP 403"),
    ):
        exporter.send(signal, numbered(signal, STACK_TENANT, synthetic.new_run(), 1))


# --- alerts ---


@pytest.mark.parametrize("uid", sorted(RULES))
@pytest.mark.usefixtures("monitored")
def test_no_alert_while_all_is_well(uid: str) -> None:
    assert CALM[uid] == []


@pytest.mark.parametrize(("uid", "label"), REFUSALS.items())
def test_what_is_refused_is_an_alert(
    uid: str, label: str, monitored: LocalStack, client: Client
) -> None:
    assert {each[label] for each in REFUSED_ONCE[uid]} == set(monitored.tenants)
    _fires(monitored, client, uid, **{label: monitored.tenants[0]})


def test_lines_that_go_on_being_old_are_an_alert(monitored: LocalStack, client: Client) -> None:
    """Sent all the while: what a Loki that has just started counts first is no increase."""
    tenant = monitored.tenants[0]

    def look() -> tuple[bool | None, str]:
        _send_again(monitored, client)
        firing = _firing(monitored, client, "old-lines-are-refused")
        meant = tenant in {each["tenant"] for each in firing}
        return (True if meant else None), f"fires for {firing}, not for {tenant}"

    poll(look, PATIENCE_S, "old-lines-are-refused", interval_s=1)


def test_a_full_volume_is_an_alert(monitored: LocalStack, client: Client) -> None:
    _volume(monitored, client, used=0.9)
    _fires(monitored, client, "volume-fills-up", persistentvolumeclaim="data-mimir-0")


def test_a_secret_that_is_not_synced_is_an_alert(monitored: LocalStack, client: Client) -> None:
    """As the operator says it (https://external-secrets.io/latest/api/metrics/)."""
    labels = {"condition": "Ready", "name": "gateway-users", "namespace": "observability"}
    metric = "externalsecret_status_condition"
    _as_the_monitor(monitored, client, _gauge(metric, 1.0, {**labels, "status": "True"}))
    _as_the_monitor(monitored, client, _gauge(metric, 0.0, {**labels, "status": "False"}))
    assert _firing(monitored, client, "secret-is-not-synced") == []
    _as_the_monitor(monitored, client, _gauge(metric, 1.0, {**labels, "status": "False"}))
    _fires(monitored, client, "secret-is-not-synced", name="gateway-users")


@pytest.mark.parametrize(
    ("uid", "job"),
    [("volumes-are-not-measured", "volumes"), ("secrets-are-not-watched", "secrets")],
)
def test_what_does_not_answer_is_an_alert(
    uid: str, job: str, monitored: LocalStack, client: Client
) -> None:
    """One of two: that the other does answer hides nothing."""
    for instance, answers in (("one", 1.0), ("other", 1.0), ("other", 0.0)):
        assert _firing(monitored, client, uid) == []
        request = _gauge("up", answers, {})
        resource = request.resource_metrics[0].resource
        for key, value in (("service.name", job), ("service.instance.id", instance)):
            resource.attributes.add(key=key).value.string_value = value
        _as_the_monitor(monitored, client, request)
    _fires(monitored, client, uid, instance="other")
    assert {each["instance"] for each in _firing(monitored, client, uid)} == {"other"}


def _known(stack: LocalStack, client: Client, verdict: Verdict) -> None:
    """Wait until this verdict of the canary's is the last that is known."""
    (source,) = (
        s for s in grafana.sources(stack.data_sources()) if s.uid == f"mimir-{CANARY_TENANT}"
    )
    query = f'stackproof_verdict{{verdict="{verdict}"}} == 1'

    def look() -> tuple[bool | None, str]:
        found = _ask(client, source, "query", query=query, time=str(int(time.time()) + 1))["result"]
        return bool(found) or None, str(found)

    poll(look, PATIENCE_S, f"the canary's verdict {verdict}")


def test_the_canarys_verdict_is_an_alert(monitored: LocalStack, client: Client) -> None:
    """One that is incomplete is no leak; and a leak is one even if the next proof finds none."""
    _verdict(monitored, Verdict.INCOMPLETE)
    _known(monitored, client, Verdict.INCOMPLETE)
    assert _firing(monitored, client, "tenants-are-not-apart") == []
    assert _firing(monitored, client, "isolation-is-unproven") == []
    _verdict(monitored, Verdict.LEAKING)
    _fires(monitored, client, "tenants-are-not-apart")
    _verdict(monitored, Verdict.ISOLATED)
    _known(monitored, client, Verdict.ISOLATED)
    assert _firing(monitored, client, "tenants-are-not-apart") != []


def test_a_silent_canary_is_an_alert(monitored: LocalStack, client: Client) -> None:
    """Another tenant, as which no canary has ever spoken."""
    assert _firing(monitored, client, "canary-is-silent", monitored.tenants[1]) != []


def test_a_canary_that_proves_nothing_is_an_alert(monitored: LocalStack, client: Client) -> None:
    """Another tenant, as which it has never proven anything."""
    tenant = monitored.tenants[2]
    _verdict(monitored, Verdict.INCOMPLETE, tenant)
    poll(
        lambda: (_firing(monitored, client, "isolation-is-unproven", tenant) or None, "nothing"),
        PATIENCE_S,
        "isolation-is-unproven",
    )


def test_traces_that_cannot_be_written_are_an_alert(monitored: LocalStack, client: Client) -> None:
    """On a full disk Tempo says so in its log alone; here a test brings that log to Loki."""

    def found() -> list[Any]:
        query = {"query": UNCUT.expr, "time": str(time.time_ns())}
        gateway = {Backend.LOKI: str(monitored.gateway_url)}
        access = replace(_source(monitored).access, urls=gateway)
        found = client.data(access, Backend.LOKI, "/loki/api/v1/query", query)
        return list(found["data"]["result"])

    def collect(lines: list[str]) -> None:
        stream = {"namespace": "observability", "component": "tempo"}
        values = [[str(time.time_ns() + n), line] for n, line in enumerate(lines)]
        url = f"{monitored.backend_url(Backend.LOKI)}/loki/api/v1/push"
        answer = client.pool.request(
            "POST",
            url,
            json={"streams": [{"stream": stream, "values": values}]},
            headers={TENANT_HEADER: STACK_TENANT},
        )
        assert answer.status == 204, answer.data

    tenant = monitored.tenants[1]
    log = monitored.process("tempo").log
    with small_disk(monitored, "tempo") as disk:
        collect(["ready", *log.read_text("utf-8").splitlines()[-5:]])
        assert found() == []
        with full(disk), monitored.sender(tenant, EntryPoint.GATEWAY, client) as exporter:

            def log_error() -> tuple[list[str] | None, str]:
                emission = synthetic.new_emission(tenant, "uncut")
                exporter.send(Signal.TRACES, synthetic.make(emission, Signal.TRACES))
                text = monitored.process("tempo").log.read_text("utf-8")
                said = [line for line in text.splitlines() if "failed to cut traces" in line]
                return (said[-5:] or None), text[-300:]

            collect(poll(log_error, PATIENCE_S, "Tempo's log error"))
    poll(lambda: (found() or None, "nothing"), PATIENCE_S, UNCUT.uid)
