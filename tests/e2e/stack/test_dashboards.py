"""Every panel shows something, to each tenant and to the admin, when the application is busy.

A panel's query goes to the real backend through the data source that Grafana would use for it, with
its variables filled in as Grafana fills them.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from typing import Any

import pytest

from stackproof.backends import Client, grafana, poll
from stackproof.checks import dashboards
from stackproof.checks.dashboards import Dashboard, Query
from stackproof.flux.deployment import Deployment
from stackproof.model import Backend, EntryPoint, Signal
from stackproof.otlp import app_metrics, senders, synthetic
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import load_registry
from stackproof.stack.base import Stack

pytestmark = pytest.mark.xdist_group("stack")

TENANTS = load_registry(Checkout.find()).names
ALL = dashboards.read(Deployment.load(Checkout.find()).lgtm())
#: The stack's own health needs the monitor: test_stack_dashboard.py.
DASHBOARDS = tuple(each for each in ALL if each.uid != "stack")
VIEWS = [
    pytest.param(dashboard, tenant, id=f"{dashboard.uid}-{tenant or 'all'}")
    for dashboard in DASHBOARDS
    for tenant in ("", *TENANTS)
    # One that has no data source to choose is for all tenants.
    if not tenant or any(each["type"] == "datasource" for each in dashboard.variables.values())
]
#: Tempo's first span metrics of a tenant come after 15 seconds; a busy machine is slower.
PATIENCE_S = 90


@pytest.fixture(scope="module")
def sources(stack: Stack) -> Mapping[str, grafana.DataSource]:
    return {source.uid: source for source in grafana.sources(stack.data_sources())}


@pytest.fixture(scope="module", autouse=True)
def _busy(stack: Stack, client: Client, sources: Mapping[str, grafana.DataSource]) -> None:
    """Every tenant's application has been busy for five minutes, and something went wrong."""
    run = synthetic.new_run()
    for tenant in TENANTS:
        with stack.sender(tenant, EntryPoint.ALLOY_GRPC, client) as exporter:
            exporter.send(Signal.METRICS, app_metrics.busy(tenant))
            _requests(exporter, tenant, run)

    def look() -> tuple[set[str] | None, str]:
        answer = _ask(client, sources["mimir"], "/api/v1/query", {"query": _FAILED_CALLS})
        found = {each["metric"]["__tenant_id__"] for each in answer["data"]["result"]}
        return (found if found == set(TENANTS) else None), f"span metrics of {found}"

    # What a counter held when it was first seen is no rate: only what comes after it.
    poll(look, PATIENCE_S, "span metrics")
    for tenant in TENANTS:
        with stack.sender(tenant, EntryPoint.ALLOY_GRPC, client) as exporter:
            _requests(exporter, tenant, run)


_FAILED_CALLS = (
    'count by (__tenant_id__) (traces_spanmetrics_calls_total{status_code="STATUS_CODE_ERROR"})'
)


def _requests(exporter: senders.Sender, tenant: str, run: str) -> None:
    """Send spans and lines of a request that went well, and of one that failed."""
    for failed in (False, True):
        emission = synthetic.new_emission(tenant, run)
        for signal in (Signal.TRACES, Signal.LOGS):
            message = synthetic.make(emission, signal)
            exporter.send(signal, _failed(signal, message) if failed else message)


def _failed(signal: Signal, message: Any) -> Any:
    """Turn telemetry of a request that went well into that of one that did not."""
    if signal is Signal.TRACES:
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    span.status.code = span.status.STATUS_CODE_ERROR
    else:
        for resource in message.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    record.severity_text, record.severity_number = "ERROR", 17
    return message


@pytest.mark.parametrize(("dashboard", "tenant"), VIEWS)
def test_no_panel_is_empty(
    dashboard: Dashboard, tenant: str, sources: Mapping[str, grafana.DataSource], client: Client
) -> None:
    values = {
        name: poll(
            lambda name=name: _options(dashboard, name, tenant, sources, client),  # type: ignore[misc]
            PATIENCE_S,
            f"variable {name}",
        )
        for name, variable in dashboard.variables.items()
        if variable["type"] == "query"
    }
    values |= {n: "" for n, v in dashboard.variables.items() if v["type"] == "textbox"}
    for query in dashboard.queries:
        source = sources[dashboard.source_of(query, tenant)]
        text = dashboards.expand(query.text, values)
        # Whoever compares tenants must show each: the rates of one may come a moment later.
        wanted = set(TENANTS) if "by (__tenant_id__" in text else set()
        poll(
            lambda query=query, text=text, source=source, wanted=wanted: _of(  # type: ignore[misc]
                wanted, *_shown(_ask(client, source, *_question(query, text)))
            ),
            PATIENCE_S,
            f"{dashboard.name}: panel {query.panel!r}: {text}",
        )


def _of(
    wanted: set[str], shown: list[Mapping[str, str]] | None, said: str
) -> tuple[list[Mapping[str, str]] | None, str]:
    """Return what a panel shows, None while it lacks one of these tenants."""
    found = {each.get("__tenant_id__", "") for each in shown or ()}
    return (shown if found >= wanted else None), said


def test_every_metric_of_the_list_is_emitted(
    sources: Mapping[str, grafana.DataSource], client: Client
) -> None:
    """The list that dashboards are checked against holds no name that Mimir never sees."""

    def look() -> tuple[bool | None, str]:
        answer = _ask(client, sources["mimir"], "/api/v1/label/__name__/values", {})
        missing = app_metrics.SERIES - set(answer["data"])
        return (None if missing else True), f"missing: {sorted(missing)}"

    poll(look, PATIENCE_S, "names of metrics")


def _question(query: Query, text: str) -> tuple[str, dict[str, str]]:
    now = int(time.time()) + 1
    window = {"start": str(now - 900), "end": str(now)}
    if query.backend is Backend.TEMPO:
        return "/api/search", {"q": text, **window}
    prefix = "/api/v1" if query.backend is Backend.MIMIR else "/loki/api/v1"
    if query.instant:
        return f"{prefix}/query", {"query": text, "time": str(now)}
    step = {"step": "15"} if query.backend is Backend.MIMIR else {}
    return f"{prefix}/query_range", {"query": text, **window, **step}


def _ask(client: Client, source: grafana.DataSource, path: str, params: Mapping[str, str]) -> Any:
    return client.data(source.access, source.backend, path, params)


def _shown(answer: Any) -> tuple[list[Mapping[str, str]] | None, str]:
    """Return the labels of what a panel would draw: traces, lines, and values that are not zero."""
    if "traces" in answer:
        found = answer["traces"]
    else:
        found = [_labels(each) for each in answer["data"]["result"] if _drawn(each)]
    return found or None, json.dumps(answer)[:300]


def _labels(result: Mapping[str, Any]) -> Mapping[str, str]:
    labels: Mapping[str, str] = result.get("metric") or result.get("stream") or {"": ""}
    return labels


def _drawn(result: Mapping[str, Any]) -> bool:
    if "stream" in result:
        return bool(result["values"])
    points = result["values"] if "values" in result else [result["value"]]
    numbers = [float(value) for _, value in points]
    return any(math.isfinite(number) and number > 0 for number in numbers)


def _options(
    dashboard: Dashboard,
    name: str,
    tenant: str,
    sources: Mapping[str, grafana.DataSource],
    client: Client,
) -> tuple[str | None, str]:
    """Return what the variable offers first, as Grafana asks for it."""
    variable = dashboard.variables[name]
    chosen = dashboard.variables[variable["datasource"]["uid"].strip("${}")]
    backend = grafana.BACKENDS[chosen["query"]]
    source = sources[f"{backend}-{tenant}" if tenant else str(backend)]
    query = variable["query"]
    if backend is Backend.LOKI:
        answer = _ask(client, source, f"/loki/api/v1/label/{query['label']}/values", {})
    else:
        found = re.fullmatch(r"label_values\((\w+), (\w+)\)", query["query"])
        assert found, f"{query['query']} is no label_values(METRIC, LABEL)"
        metric, label = found.groups()
        assert metric in app_metrics.SERIES, f"nothing emits {metric}"
        answer = _ask(client, source, f"/api/v1/label/{label}/values", {"match[]": metric})
    options = [each for each in answer.get("data") or () if each == "open-webui"]
    return (options[0] if options else None), json.dumps(answer)[:300]
