"""The telemetry that stands for a tenant's application: what it says, and how failure shows."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.version import __version__ as sdk_version

from stackproof.model import Signal
from stackproof.otlp import senders, synthetic
from stackproof.otlp.synthetic import Emission


@pytest.fixture
def emission() -> Emission:
    return synthetic.new_emission("soev", synthetic.new_run())


def attributes(carrier: Any) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in carrier.attributes
    }


def test_no_token_is_part_of_another() -> None:
    tokens = [synthetic.new_token() for _ in range(2000)]
    runs = [synthetic.new_run() for _ in range(100)]
    assert len(set(tokens)) == len(tokens)
    # All of one length and distinct: none holds another. And no run's id looks like one.
    assert {len(token) for token in tokens} == {26}
    assert not any(re.search(synthetic.TOKEN_PATTERN, run.encode()) for run in runs)
    joined = "".join(tokens).encode()
    assert [each.decode() for each in re.findall(synthetic.TOKEN_PATTERN, joined)] == tokens


def test_each_signal_has_its_own_token_and_ids_have_no_leading_zero() -> None:
    for _ in range(200):
        emission = synthetic.new_emission("soev", "run")
        assert len(set(emission.tokens.values())) == 3
        assert re.fullmatch("[1-9a-f][0-9a-f]{31}", emission.trace_id)
        assert re.fullmatch("[1-9a-f][0-9a-f]{15}", emission.span_id)


@pytest.mark.parametrize("signal", list(Signal))
def test_the_resource_is_the_applications(emission: Emission, signal: Signal) -> None:
    request: Any = synthetic.make(emission, signal)
    (group,) = getattr(request, f"resource_{'spans' if signal == 'traces' else signal}")
    assert attributes(group.resource) == {
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": sdk_version,
        "service.name": "open-webui",
        "service.instance.id": f"open-webui-{emission.tokens[signal]}",
        "deployment.environment": "stackproof",
        "tenant.id": "soev",
    }


@pytest.mark.parametrize("signal", list(Signal))
def test_a_signal_carries_its_own_token_and_no_other(emission: Emission, signal: Signal) -> None:
    body = synthetic.make(emission, signal).SerializeToString()
    found = {token.decode() for token in re.findall(synthetic.TOKEN_PATTERN, body)}
    assert found == {emission.tokens[signal]}
    assert emission.run.encode() in body


def test_spans(emission: Emission) -> None:
    request: Any = synthetic.make(emission, Signal.TRACES)
    scopes = {
        group.scope.name: list(group.spans) for group in request.resource_spans[0].scope_spans
    }
    assert set(scopes) == {
        "opentelemetry.instrumentation.fastapi",
        "opentelemetry.instrumentation.sqlalchemy",
    }
    spans = {span.name: span for group in scopes.values() for span in group}
    server = spans["GET /api/v1/chats/{id}"]
    assert server.kind == 2  # SERVER
    assert (server.trace_id.hex(), server.span_id.hex()) == (emission.trace_id, emission.span_id)
    assert not server.parent_span_id
    assert attributes(server)["http.route"] == "/api/v1/chats/{id}"
    for name in ("SELECT openwebui", "GET /api/v1/chats/{id} http send"):
        child = spans[name]
        assert child.parent_span_id == server.span_id
        assert child.trace_id == server.trace_id
        assert server.start_time_unix_nano < child.start_time_unix_nano
        assert child.end_time_unix_nano < server.end_time_unix_nano


def test_metrics(emission: Emission) -> None:
    request: Any = synthetic.make(emission, Signal.METRICS)
    (scope,) = request.resource_metrics[0].scope_metrics
    assert scope.scope.name == "open_webui.utils.telemetry.metrics"
    metrics = {metric.name: metric for metric in scope.metrics}
    token = emission.tokens[Signal.METRICS]
    assert set(metrics) == {
        "http.server.requests",
        "http.server.duration",
        "webui.users.total",
        "webui.users.active",
        "webui.users.active.today",
        f"stackproof.{token}",
    }
    requests, duration = metrics["http.server.requests"], metrics["http.server.duration"]
    assert (requests.unit, duration.unit) == ("1", "ms")
    assert (requests.sum.aggregation_temporality, requests.sum.is_monotonic) == (2, True)
    assert duration.histogram.aggregation_temporality == 2
    # Exemplars are only taken inside a sampled span: they name the trace that was sent.
    for point in (requests.sum.data_points[0], duration.histogram.data_points[0]):
        (exemplar,) = point.exemplars
        assert exemplar.trace_id.hex() == emission.trace_id
        assert exemplar.span_id.hex() == emission.span_id
        assert attributes(point)["stackproof.token"] == token


def test_logs(emission: Emission) -> None:
    request: Any = synthetic.make(emission, Signal.LOGS)
    (scope,) = request.resource_logs[0].scope_logs
    (record,) = scope.log_records
    token = emission.tokens[Signal.LOGS]
    assert scope.scope.name == "open_webui.main"
    assert (record.severity_text, record.trace_id.hex()) == ("INFO", emission.trace_id)
    assert token in record.body.string_value
    assert {
        "code.file.path",
        "code.function.name",
        "code.line.number",
        f"stackproof.{token}",
    } <= set(attributes(record))


def test_the_callers_environment_has_no_effect(
    emission: Emission, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {signal: synthetic.make(emission, signal) for signal in Signal}
    for name, value in {
        "OTEL_SDK_DISABLED": "true",
        "OTEL_RESOURCE_ATTRIBUTES": "tenant.id=somebody-else,leak=1",
        "OTEL_SERVICE_NAME": "other",
        "OTEL_TRACES_SAMPLER": "always_off",
        "OTEL_METRICS_EXEMPLAR_FILTER": "always_off",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "1",
        "OTEL_ATTRIBUTE_COUNT_LIMIT": "1",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "3",
    }.items():
        monkeypatch.setenv(name, value)
    for signal in Signal:
        changed: Any = synthetic.make(emission, signal)
        assert len(changed.SerializeToString()) == len(plain[signal].SerializeToString())
    assert os.environ["OTEL_SDK_DISABLED"] == "true"


@pytest.mark.parametrize(
    ("signal", "kind", "partial", "reason"),
    [
        (Signal.TRACES, ExportTraceServiceResponse, {"rejected_spans": 2}, "no reason given"),
        (
            Signal.METRICS,
            ExportMetricsServiceResponse,
            {"rejected_data_points": 1, "error_message": "out of order sample"},
            "out of order sample",
        ),
        (Signal.LOGS, ExportLogsServiceResponse, {"error_message": "too old"}, "too old"),
    ],
)
def test_a_partial_success_is_an_error_with_its_reason(
    signal: Signal, kind: type[Any], partial: dict[str, Any], reason: str
) -> None:
    answer = kind()
    for name, value in partial.items():
        setattr(answer.partial_success, name, value)
    with pytest.raises(senders.ExportError, match=rf"gateway: rejected \d items? of .*: {reason}"):
        senders._check(signal, answer, "gateway")


def test_a_full_success_is_none() -> None:
    senders._check(Signal.METRICS, ExportMetricsServiceResponse(), "gateway")
    # Mimir answers with an empty partial success when it took everything.
    taken = ExportMetricsServiceResponse()
    taken.partial_success.SetInParent()
    senders._check(Signal.METRICS, taken, "gateway")


def test_http_paths_are_full_and_a_given_url_is_used_as_it_stands() -> None:
    assert senders.HttpSender("http://alloy:4318/")._urls == {
        Signal.TRACES: "http://alloy:4318/v1/traces",
        Signal.METRICS: "http://alloy:4318/v1/metrics",
        Signal.LOGS: "http://alloy:4318/v1/logs",
    }
    given = {Signal.LOGS: "http://loki:3100/otlp/v1/logs"}
    assert senders.HttpSender(given)._urls == given


def test_basic_auth() -> None:
    assert senders.basic_auth(None) == {}
    assert senders.basic_auth(("soev", "pässword")) == {
        "Authorization": "Basic c29ldjpww6Rzc3dvcmQ="
    }
