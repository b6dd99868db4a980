"""The metrics that open-webui emits, one row each, and some minutes of them as if it had been busy.

The rows are what the pinned open-webui sends (its own meter, and the instrumentations of FastAPI,
aiohttp, SQLAlchemy and the process that it switches on); they are held to what it really sends by
tests/e2e/application/test_real_application.py. `prometheus` is what Mimir makes of the name.
Dashboards may ask for these, for what Tempo makes of spans, and for nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as OtlpMetric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

_APP = "open_webui.utils.telemetry.metrics"
_FASTAPI = "opentelemetry.instrumentation.fastapi"
_AIOHTTP = "opentelemetry.instrumentation.aiohttp_client"
_DATABASE = "opentelemetry.instrumentation.sqlalchemy"
_SYSTEM = "opentelemetry.instrumentation.system_metrics"


class Instrument(StrEnum):
    """How a metric's value is to be read."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of the application.

    `points` holds the attributes of each series that a busy application has.
    """

    name: str
    kind: Instrument
    unit: str
    scope: str
    prometheus: str
    points: tuple[Mapping[str, str], ...] = field(default=({},))

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which its series are kept."""
        if self.kind is Instrument.HISTOGRAM:
            return tuple(f"{self.prometheus}_{part}" for part in ("bucket", "sum", "count"))
        return (self.prometheus,)


def _served(*statuses: str) -> tuple[Mapping[str, str], ...]:
    return tuple(
        {"http.method": "GET", "http.route": "/api/v1/chats/{id}", "http.status_code": status}
        for status in statuses
    )


# What FastAPI's instrumentation says of each request besides.
_SERVER = {
    "http.scheme": "http",
    "http.host": "open-webui:8080",
    "http.flavor": "1.1",
    "http.method": "GET",
    "http.server_name": "open-webui:8080",
}
_ANSWERED = {
    **_SERVER,
    "net.host.port": "8080",
    "http.status_code": "200",
    "http.target": "/api/config",
}
_CALLED = {
    "http.method": "GET",
    "http.host": "api.openai.com",
    "net.peer.name": "api.openai.com",
    "net.peer.port": "443",
    "http.status_code": "200",
}
_SERVED = _served("200", "500")
_POOL = "postgresql/openwebui"
_COUNTER, _GAUGE, _HISTOGRAM = Instrument.COUNTER, Instrument.GAUGE, Instrument.HISTOGRAM

EMITTED: tuple[Metric, ...] = (
    Metric("http.server.requests", _COUNTER, "1", _APP, "http_server_requests_total", _SERVED),
    Metric(
        "http.server.duration", _HISTOGRAM, "ms", _APP, "http_server_duration_milliseconds", _SERVED
    ),
    Metric("webui.users.total", _GAUGE, "users", _APP, "webui_users_total"),
    Metric("webui.users.active", _GAUGE, "users", _APP, "webui_users_active"),
    Metric("webui.users.active.today", _GAUGE, "users", _APP, "webui_users_active_today"),
    Metric(
        "http.server.active_requests",
        _GAUGE,
        "{request}",
        _FASTAPI,
        "http_server_active_requests",
        (_SERVER,),
    ),
    # The same name once more, of the same requests, and without their route.
    Metric(
        "http.server.duration",
        _HISTOGRAM,
        "ms",
        _FASTAPI,
        "http_server_duration_milliseconds",
        tuple({"http.method": "GET", "http.status_code": status} for status in ("200", "500")),
    ),
    Metric(
        "http.server.response.size",
        _HISTOGRAM,
        "By",
        _FASTAPI,
        "http_server_response_size_bytes",
        (_ANSWERED,),
    ),
    Metric(
        "http.client.duration",
        _HISTOGRAM,
        "ms",
        _AIOHTTP,
        "http_client_duration_milliseconds",
        (_CALLED,),
    ),
    Metric(
        "db.client.connections.usage",
        _GAUGE,
        "connections",
        _DATABASE,
        "db_client_connections_usage",
        ({"pool.name": _POOL, "state": "idle"}, {"pool.name": _POOL, "state": "used"}),
    ),
    Metric(
        "process.cpu.time",
        _COUNTER,
        "s",
        _SYSTEM,
        "process_cpu_time_seconds_total",
        ({"type": "user"}, {"type": "system"}),
    ),
    Metric("process.memory.usage", _GAUGE, "By", _SYSTEM, "process_memory_usage_bytes"),
    Metric("process.thread.count", _GAUGE, "", _SYSTEM, "process_thread_count"),
    Metric(
        "process.open_file_descriptor.count",
        _GAUGE,
        "",
        _SYSTEM,
        "process_open_file_descriptor_count",
    ),
)

#: What Tempo makes of every tenant's spans (span-metrics and service-graphs), and Mimir of every
#: resource (`target_info`).
DERIVED: tuple[str, ...] = (
    "target_info",
    "traces_spanmetrics_calls_total",
    "traces_spanmetrics_latency_bucket",
    "traces_spanmetrics_latency_count",
    "traces_spanmetrics_latency_sum",
    "traces_spanmetrics_size_total",
    "traces_service_graph_request_total",
    "traces_service_graph_request_failed_total",
    "traces_service_graph_request_client_seconds_bucket",
    "traces_service_graph_request_client_seconds_count",
    "traces_service_graph_request_client_seconds_sum",
    "traces_service_graph_request_server_seconds_bucket",
    "traces_service_graph_request_server_seconds_count",
    "traces_service_graph_request_server_seconds_sum",
)

#: Names of all series that can be asked for.
SERIES: frozenset[str] = frozenset(
    {*DERIVED, *(name for metric in EMITTED for name in metric.series)}
)

#: A histogram that two instrumentations make of the same requests, and the label that only the
#: application's own has: whoever does not ask by it counts each request twice.
EMITTED_TWICE: Mapping[str, str] = dict.fromkeys(
    next(metric for metric in EMITTED if metric.name == "http.server.duration").series, "http_route"
)

_BOUNDS = (5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 1000.0)


def busy(tenant: str, *, minutes: float = 5.0, routes: int = 1) -> ExportMetricsServiceRequest:
    """Return the last `minutes` of every metric of a busy application, a point each 15 seconds.

    Counters and histograms are cumulative and grow with every point, so that rates are not zero.
    With more than one route, what is told by route is there for each.
    """
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add(resource=application(tenant))
    now = time.time_ns()
    steps = int(minutes * 4)
    times = [now - (steps - number) * 15 * 10**9 for number in range(steps + 1)]
    for scope in dict.fromkeys(metric.scope for metric in EMITTED):
        part = resource.scope_metrics.add()
        part.scope.name = scope
        part.metrics.extend(
            _made(metric, times, routes) for metric in EMITTED if metric.scope == scope
        )
    return request


def application(tenant: str) -> Resource:
    """Return what a tenant's application says of itself."""
    said = {
        "service.name": "open-webui",
        "service.instance.id": "open-webui-0",
        "deployment.environment": "stackproof",
        "tenant.id": tenant,
    }
    return Resource(attributes=key_values(said))


def key_values(attributes: Mapping[str, str]) -> list[KeyValue]:
    """Return attributes as OTLP has them."""
    return [
        KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in attributes.items()
    ]


def samples(request: ExportMetricsServiceRequest) -> int:
    """Return how many samples Mimir makes of it: a histogram's point is one for each bucket, +2."""
    return sum(
        len(metric.gauge.data_points)
        + len(metric.sum.data_points)
        + sum(len(point.bucket_counts) + 2 for point in metric.histogram.data_points)
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )


def _by_route(metric: Metric, routes: int) -> Iterator[Mapping[str, str]]:
    """Give the attributes of each series: those with a route once for each route."""
    for point in metric.points:
        yield point
        # FastAPI's instrumentation calls the route so.
        told = point.keys() & {"http.route", "http.target"}
        for number in range(1, routes) if told else ():
            yield {**point, **dict.fromkeys(told, f"/api/v1/route-{number}/{{id}}")}


def _made(metric: Metric, times: list[int], routes: int) -> OtlpMetric:
    made = OtlpMetric(name=metric.name, unit=metric.unit)
    if metric.kind is Instrument.HISTOGRAM:
        made.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    elif metric.kind is Instrument.COUNTER:
        made.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        made.sum.is_monotonic = True
    for attributes in map(key_values, _by_route(metric, routes)):
        for number, at in enumerate(times, start=1):
            when = {"start_time_unix_nano": times[0] - 10**9, "time_unix_nano": at}
            if metric.kind is Instrument.HISTOGRAM:
                buckets = [number] * (len(_BOUNDS) + 1)
                made.histogram.data_points.add(
                    attributes=attributes,
                    count=sum(buckets),
                    sum=40.0 * sum(buckets),
                    bucket_counts=buckets,
                    explicit_bounds=_BOUNDS,
                    **when,
                )
            elif metric.kind is Instrument.COUNTER:
                made.sum.data_points.add(attributes=attributes, as_double=3.0 * number, **when)
            else:
                made.gauge.data_points.add(attributes=attributes, as_double=3.0, **when)
    return made
