"""Send traces, metrics and logs as open-webui would, each marked with a token nobody can guess.

The OpenTelemetry SDK makes the telemetry (names, scopes, attributes, temporality and exemplars as
open-webui 0.12 emits them) and its own encoders turn it into OTLP; the sending is ours. The SDK's
exporters would need three threads and a channel for each tenant, repeat a refused export in silence
and throw away the *partial success* in which Mimir reports lost points. Here a tenant costs no
thread, all signals of a tenant share one connection, and whatever is not taken is an error that
gives the reason. Nothing of the caller's ``OTEL_*`` or proxy environment has any effect.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from google.protobuf.message import Message
from opentelemetry import trace as trace_api
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider, LogRecordLimits
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider, TraceBasedExemplarFilter
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.version import __version__ as sdk_version
from opentelemetry.semconv.resource import ResourceAttributes

from stackproof.errors import StackproofError
from stackproof.model import Signal

#: Attribute that holds the token; Mimir and Loki call it `stackproof_token`.
TOKEN = "stackproof.token"
#: Attribute that holds the run's id, so that one query selects what a run has sent.
RUN = "stackproof.run"

_TOKEN_PREFIX = "sp"
_TOKEN_HEX = 24  # 96 bits: nobody guesses it
#: Matches every token in a body, wherever it stands: `s` and `p` are no hexadecimal digits, so two
#: tokens cannot overlap, and none can be part of another, since all are of one length.
TOKEN_PATTERN = rb"sp[0-9a-f]{24}"


def new_token() -> str:
    """Return an unguessable token, usable in an attribute, a label name and a metric name."""
    return _TOKEN_PREFIX + secrets.token_hex(_TOKEN_HEX // 2)


def new_run() -> str:
    """Return the id of a run: 16 hexadecimal digits, no part of any token."""
    return secrets.token_hex(8)


def name_of(token: str) -> str:
    """Return the attribute or metric name that carries `token`, for APIs that show names only."""
    return f"stackproof.{token}"


@dataclass(frozen=True, slots=True)
class Emission:
    """What one tenant has sent.

    `tokens` has one entry for each signal sent. `trace_id` and `span_id` (lower-case hexadecimal,
    no leading zero) are those of the server span, and of the log lines and exemplars. `sent_ns` is
    the wall clock when the telemetry was made; `taken` the `time.monotonic()` at which the
    receiver acknowledged each signal.
    """

    run: str
    tenant: str
    tokens: Mapping[Signal, str]
    trace_id: str
    span_id: str
    sent_ns: int
    taken: Mapping[Signal, float] = field(default_factory=dict)


# --- making telemetry -----------------------------------------------------------------------------


class _ChosenTrace(IdGenerator):
    """Gives the first span the ids we chose; its children get random span ids."""

    def __init__(self, trace_id: int, span_id: int) -> None:
        self._trace_id = trace_id
        self._span_ids = iter((span_id,))
        self._random = RandomIdGenerator()

    def generate_trace_id(self) -> int:
        return self._trace_id

    def generate_span_id(self) -> int:
        return next(self._span_ids, None) or self._random.generate_span_id()


_ENVIRONMENT = threading.Lock()


@contextmanager
def _without_otel_environment() -> Iterator[None]:
    """Hide `OTEL_*` from the SDK, whose constructors read it (OTEL_SDK_DISABLED, limits, …)."""
    with _ENVIRONMENT:
        hidden = {key: value for key, value in os.environ.items() if key.startswith("OTEL_")}
        for key in hidden:
            del os.environ[key]
        try:
            yield
        finally:
            os.environ.update(hidden)


_SPAN_LIMITS = SpanLimits(
    max_attributes=128,
    max_events=128,
    max_links=128,
    max_event_attributes=128,
    max_link_attributes=128,
    max_attribute_length=SpanLimits.UNSET,
    max_span_attribute_length=SpanLimits.UNSET,
)

_ROUTE = "/api/v1/chats/{id}"


def _resource(tenant: str, token: str, service: str) -> Resource:
    # Resource.create() would read the environment. The instance id carries the token because it is
    # the attribute that all backends index (Mimir's `instance`, Loki's `service_instance_id`).
    return Resource(
        {
            ResourceAttributes.TELEMETRY_SDK_LANGUAGE: "python",
            ResourceAttributes.TELEMETRY_SDK_NAME: "opentelemetry",
            ResourceAttributes.TELEMETRY_SDK_VERSION: sdk_version,
            ResourceAttributes.SERVICE_NAME: service,
            ResourceAttributes.SERVICE_INSTANCE_ID: f"{service}-{token}",
            # Keeps it apart on dashboards of a deployment that is in use.
            ResourceAttributes.DEPLOYMENT_ENVIRONMENT: "stackproof",
            "tenant.id": tenant,
        }
    )


def _mark(run: str, token: str) -> dict[str, str]:
    return {RUN: run, TOKEN: token, name_of(token): "1"}


def _span_context(emission: Emission) -> Context:
    parent = trace_api.SpanContext(
        trace_id=int(emission.trace_id, 16),
        span_id=int(emission.span_id, 16),
        is_remote=False,
        trace_flags=trace_api.TraceFlags(trace_api.TraceFlags.SAMPLED),
    )
    return trace_api.set_span_in_context(trace_api.NonRecordingSpan(parent), Context())


def traces(emission: Emission, resource: Resource) -> ExportTraceServiceRequest:
    """Return one request of the application: SERVER span, a database span and an answer event."""
    collected = InMemorySpanExporter()
    provider = TracerProvider(
        sampler=ALWAYS_ON,
        resource=resource,
        shutdown_on_exit=False,
        id_generator=_ChosenTrace(int(emission.trace_id, 16), int(emission.span_id, 16)),
        span_limits=_SPAN_LIMITS,
    )
    provider.add_span_processor(SimpleSpanProcessor(collected))
    fastapi = provider.get_tracer("opentelemetry.instrumentation.fastapi")
    database = provider.get_tracer("opentelemetry.instrumentation.sqlalchemy")
    mark = _mark(emission.run, emission.tokens[Signal.TRACES])
    ended = emission.sent_ns
    began = ended - 40_000_000
    server = fastapi.start_span(
        f"GET {_ROUTE}",
        context=Context(),
        kind=trace_api.SpanKind.SERVER,
        start_time=began,
        attributes={
            "http.method": "GET",
            "http.route": _ROUTE,
            "http.scheme": "http",
            "http.target": "/api/v1/chats/1",
            "http.status_code": 200,
            "http.flavor": "1.1",
            "client.user.role": "user",
            "client.auth.type": "jwt",
            **mark,
        },
    )
    inside = trace_api.set_span_in_context(server, Context())
    database.start_span(
        "SELECT openwebui",
        context=inside,
        kind=trace_api.SpanKind.CLIENT,
        start_time=began + 5_000_000,
        attributes={
            "db.system": "postgresql",
            "db.name": "openwebui",
            "db.operation": "SELECT",
            "db.statement": "SELECT chat.id FROM chat WHERE chat.id = %(id_1)s",
            **mark,
        },
    ).end(began + 20_000_000)
    fastapi.start_span(
        f"GET {_ROUTE} http send",
        context=inside,
        start_time=began + 30_000_000,
        attributes={"asgi.event.type": "http.response.start", "http.status_code": 200},
    ).end(began + 31_000_000)
    server.end(ended)
    return encode_spans(collected.get_finished_spans())


def metrics(emission: Emission, resource: Resource) -> ExportMetricsServiceRequest:
    """Return the application's own metrics; counter and histogram hold exemplars of the trace."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(
        metric_readers=[reader],
        resource=resource,
        exemplar_filter=TraceBasedExemplarFilter(),
        shutdown_on_exit=False,
    )
    meter = provider.get_meter("open_webui.utils.telemetry.metrics")
    token = emission.tokens[Signal.METRICS]
    mark = _mark(emission.run, token)
    inside = _span_context(emission)
    served: dict[str, str | int] = {
        "http.method": "GET",
        "http.route": _ROUTE,
        "http.status_code": 200,
        **mark,
    }
    meter.create_counter("http.server.requests", unit="1", description="Total HTTP requests").add(
        1, served, context=inside
    )
    meter.create_histogram(
        "http.server.duration", unit="ms", description="HTTP request duration"
    ).record(40.0, served, context=inside)

    def observe(value: int) -> Callable[[CallbackOptions], list[Observation]]:
        return lambda _: [Observation(value, mark)]

    for name, value in (("total", 3), ("active", 2), ("active.today", 1)):
        meter.create_observable_gauge(
            f"webui.users.{name}", callbacks=[observe(value)], unit="users"
        )
    meter.create_observable_gauge(
        name_of(token), callbacks=[observe(1)], description="Marks a run of the isolation proof"
    )
    collected = reader.get_metrics_data()
    if not isinstance(collected, MetricsData):
        raise StackproofError("the OpenTelemetry SDK collected no metrics", where="telemetry")
    return encode_metrics(collected)


def logs(emission: Emission, resource: Resource) -> ExportLogsServiceRequest:
    """Return one log line of the application, written inside the trace's server span."""
    collected = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    provider = LoggerProvider(
        resource=resource,
        shutdown_on_exit=False,
        log_record_limits=LogRecordLimits(
            max_attributes=128, max_attribute_length=LogRecordLimits.UNSET
        ),
    )
    provider.add_log_record_processor(SimpleLogRecordProcessor(collected))
    token = emission.tokens[Signal.LOGS]
    provider.get_logger("open_webui.main").emit(
        LogRecord(
            timestamp=emission.sent_ns,
            observed_timestamp=emission.sent_ns,
            context=_span_context(emission),
            severity_text="INFO",
            severity_number=SeverityNumber.INFO,
            body=f"GET {_ROUTE} 200 {token}",
            attributes={
                "code.file.path": "/app/backend/open_webui/main.py",
                "code.function.name": "get_chat_by_id",
                "code.line.number": 712,
                **_mark(emission.run, token),
            },
        )
    )
    return encode_logs(collected.get_finished_logs())


_MAKERS: Mapping[Signal, Callable[[Emission, Resource], Message]] = {
    Signal.TRACES: traces,
    Signal.METRICS: metrics,
    Signal.LOGS: logs,
}


def make(emission: Emission, signal: Signal, *, service: str = "open-webui") -> Message:
    """Return the OTLP export request of one signal of an emission."""
    resource = _resource(emission.tenant, emission.tokens[signal], service)
    with _without_otel_environment():
        return _MAKERS[signal](emission, resource)


# --- sending it -----------------------------------------------------------------------------------


def new_emission(tenant: str, run: str, signals: Sequence[Signal] = tuple(Signal)) -> Emission:
    """Return fresh tokens and ids for one tenant; nothing is sent."""
    # Tempo prints a trace id without its leading zeros: ours has none, so it is found as it is.
    return Emission(
        run=run,
        tenant=tenant,
        tokens={signal: new_token() for signal in signals},
        trace_id=f"{1 + secrets.randbelow(15):x}{secrets.token_hex(16)[1:]}",
        span_id=f"{1 + secrets.randbelow(15):x}{secrets.token_hex(8)[1:]}",
        sent_ns=time.time_ns(),
    )
