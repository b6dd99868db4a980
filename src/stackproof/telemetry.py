"""Send traces, metrics and logs as open-webui would, each marked with a token nobody can guess.

The OpenTelemetry SDK makes the telemetry (names, scopes, attributes, temporality and exemplars as
open-webui 0.12 emits them) and its own encoders turn it into OTLP; the sending is ours. The SDK's
exporters would need three threads and a channel for each tenant, repeat a refused export in silence
and throw away the *partial success* in which Mimir reports lost points. Here a tenant costs no
thread, all signals of a tenant share one connection, and whatever is not taken is an error that
gives the reason. Nothing of the caller's ``OTEL_*`` or proxy environment has any effect.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

import grpc  # type: ignore[import-untyped]
import urllib3
from google.protobuf.message import DecodeError, Message
from opentelemetry import trace as trace_api
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
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
from stackproof.stack.base import Access, Backend, Signal

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


class ExportError(StackproofError):
    """Telemetry that was not taken, wholly or in part, and the reason the receiver gave.

    `retryable`: OTLP asks exporters to send it again (no connection, or the receiver is busy).
    """

    def __init__(self, what: str, where: str | None = None, *, retryable: bool = False) -> None:
        super().__init__(what, where)
        self.retryable = retryable


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


def _resource(tenant: str, token: str, service: str, environment: str) -> Resource:
    # Resource.create() would read the environment. The instance id carries the token because it is
    # the attribute that all backends index (Mimir's `instance`, Loki's `service_instance_id`).
    return Resource(
        {
            ResourceAttributes.TELEMETRY_SDK_LANGUAGE: "python",
            ResourceAttributes.TELEMETRY_SDK_NAME: "opentelemetry",
            ResourceAttributes.TELEMETRY_SDK_VERSION: sdk_version,
            ResourceAttributes.SERVICE_NAME: service,
            ResourceAttributes.SERVICE_INSTANCE_ID: f"{service}-{token}",
            ResourceAttributes.DEPLOYMENT_ENVIRONMENT: environment,
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
        raise ExportError("the OpenTelemetry SDK collected no metrics", where="telemetry")
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


def make(
    emission: Emission,
    signal: Signal,
    *,
    service: str = "open-webui",
    environment: str = "stackproof",
) -> Message:
    """Return the OTLP export request of one signal of an emission.

    `environment` is the `deployment.environment`, which keeps synthetic telemetry apart on
    dashboards of a deployment that is in use.
    """
    resource = _resource(emission.tenant, emission.tokens[signal], service, environment)
    with _without_otel_environment():
        return _MAKERS[signal](emission, resource)


# --- sending it -----------------------------------------------------------------------------------

_ANSWERS: Mapping[Signal, type[Message]] = {
    Signal.TRACES: ExportTraceServiceResponse,
    Signal.METRICS: ExportMetricsServiceResponse,
    Signal.LOGS: ExportLogsServiceResponse,
}
_METHODS = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
#: What the OTLP specification lets a client repeat: gRPC codes and HTTP statuses.
_RETRYABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    *(429, 502, 503, 504),
}
_REJECTED = {
    Signal.TRACES: "rejected_spans",
    Signal.METRICS: "rejected_data_points",
    Signal.LOGS: "rejected_log_records",
}


def _check(signal: Signal, answer: Any, where: str) -> None:
    """Raise where the receiver took less than all. A 200 alone proves nothing."""
    partial = answer.partial_success
    rejected = getattr(partial, _REJECTED[signal])
    if rejected or partial.error_message:
        raise ExportError(
            f"{rejected} items of the {signal} were rejected: "
            f"{partial.error_message or 'no reason given'}",
            where=where,
        )


class Sender(Protocol):
    """Hands OTLP export requests to one receiver; returns only when they were taken."""

    def send(self, signal: Signal, request: Message, *, timeout_s: float = 10.0) -> None:
        """Send one request. Raises ExportError where it was not taken as a whole."""

    def close(self) -> None:
        """End the connection."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class _Closing:
    """Closes itself at the end of a `with` block."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class GrpcSender(_Closing):
    """OTLP over gRPC in clear text, the application's own way to its Alloy."""

    def __init__(self, target: str, metadata: Sequence[tuple[str, str]] = ()) -> None:
        self.target = target
        self._metadata = tuple(metadata)
        # Without this option gRPC sends loopback traffic to the proxy of the environment.
        self._channel = grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)])
        self._methods = {
            signal: self._channel.unary_unary(
                path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=_ANSWERS[signal].FromString,
            )
            for signal, path in _METHODS.items()
        }

    def send(self, signal: Signal, request: Message, *, timeout_s: float = 10.0) -> None:
        """See :meth:`Sender.send`."""
        where = f"OTLP/gRPC {self.target} {signal}"
        try:
            answer = self._methods[signal](request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            raise ExportError(
                f"export failed with {code.name}: {details}", where, retryable=code in _RETRYABLE
            ) from error
        _check(signal, answer, where)

    def close(self) -> None:
        """See :meth:`Sender.close`."""
        self._channel.close()


def basic_auth(auth: tuple[str, str] | None) -> dict[str, str]:
    """Return the Authorization header for a user and a password, or no header."""
    if auth is None:
        return {}
    return {"Authorization": "Basic " + b64encode(":".join(auth).encode()).decode("ascii")}


class HttpSender(_Closing):
    """OTLP over HTTP: a tenant's Alloy, the gateway's ``/otlp``, or three separate backends.

    `endpoint` is a base URL, to which ``/v1/<signal>`` is appended, or a full URL for each signal,
    which is used as it stands (as open-webui does). A pool may be shared by many senders.
    """

    def __init__(
        self,
        endpoint: str | Mapping[Signal, str],
        *,
        auth: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        pool: urllib3.PoolManager | None = None,
    ) -> None:
        self._urls = (
            {signal: f"{endpoint.rstrip('/')}/v1/{signal}" for signal in Signal}
            if isinstance(endpoint, str)
            else dict(endpoint)
        )
        self._headers = {
            "Content-Type": "application/x-protobuf",
            **basic_auth(auth),
            **(headers or {}),
        }
        self._own_pool = pool is None
        self._pool = pool or urllib3.PoolManager(maxsize=4, retries=False)

    def send(self, signal: Signal, request: Message, *, timeout_s: float = 10.0) -> None:
        """See :meth:`Sender.send`."""
        url = self._urls[signal]
        where = f"OTLP/HTTP {url}"
        body = request.SerializeToString()
        try:
            answer = self._pool.request(
                "POST", url, body=body, headers=self._headers, timeout=timeout_s, retries=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise ExportError(f"export failed: {error}", where, retryable=True) from error
        if not 200 <= answer.status < 300:
            reason = answer.data[:300].decode("utf-8", "replace").strip()
            raise ExportError(
                f"export refused with HTTP {answer.status}: {reason or 'empty answer'}",
                where,
                retryable=answer.status in _RETRYABLE,
            )
        message = _ANSWERS[signal]()
        try:
            message.ParseFromString(answer.data)
        except DecodeError as error:
            raise ExportError(
                f"HTTP {answer.status}, but the answer is no OTLP: {answer.data[:80]!r}",
                where=where,
            ) from error
        _check(signal, message, where)

    def close(self) -> None:
        """See :meth:`Sender.close`."""
        if self._own_pool:
            self._pool.clear()


def emit(
    sender: Sender,
    tenant: str,
    run: str,
    *,
    signals: Sequence[Signal] = tuple(Signal),
    timeout_s: float = 10.0,
) -> Emission:
    """Make and send the signals of one tenant; return the tokens when all of them were taken.

    Raises ExportError, with the receiver's reason, for the first signal that was not.
    """
    emission = new_emission(tenant, run, signals)
    taken: dict[Signal, float] = {}
    for signal in signals:
        sender.send(signal, make(emission, signal), timeout_s=timeout_s)
        taken[signal] = time.monotonic()
    return Emission(
        run=run,
        tenant=tenant,
        tokens=emission.tokens,
        trace_id=emission.trace_id,
        span_id=emission.span_id,
        sent_ns=emission.sent_ns,
        taken=taken,
    )


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


def push_label(
    access: Access, emission: Emission, pool: urllib3.PoolManager, *, timeout_s: float = 10.0
) -> None:
    """Push one line to Loki under a label whose *name* carries the tenant's log token.

    OTLP cannot make such a label (Loki indexes a fixed list of resource attributes), and without
    it the APIs that show label names only (labels, detected_labels) would prove nothing.
    """
    token = emission.tokens[Signal.LOGS]
    url = f"{access.urls[Backend.LOKI]}/loki/api/v1/push"
    stream = {"service_name": "open-webui", name_of(token).replace(".", "_"): "1"}
    line = [str(emission.sent_ns), f"label of the isolation proof {token}"]
    try:
        answer = pool.request(
            "POST",
            url,
            body=json.dumps({"streams": [{"stream": stream, "values": [line]}]}),
            headers={
                "Content-Type": "application/json",
                **basic_auth(access.auth),
                **access.headers,
            },
            timeout=timeout_s,
            retries=False,
        )
    except urllib3.exceptions.HTTPError as error:
        raise ExportError(f"push failed: {error}", f"POST {url}", retryable=True) from error
    if not 200 <= answer.status < 300:
        reason = answer.data[:300].decode("utf-8", "replace").strip()
        raise ExportError(
            f"push refused with HTTP {answer.status}: {reason}",
            f"POST {url} as {access.name}",
            retryable=answer.status in _RETRYABLE,
        )
