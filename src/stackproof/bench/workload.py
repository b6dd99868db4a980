"""Sustained telemetry of many open-webui tenants, and how soon it is visible meanwhile.

A tenant sends as the application's exporters do (traces and logs every 5 s, metrics every 10 s), so
its requests to the gateway are few and large. The senders keep to their times: where a backend is
too slow they fall behind, and `Sent.behind_s` says how far. Beside them *probes* send one marked
trace, series and line at a time and look for it until it is visible.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from stackproof.backends import PROVABLE, Client
from stackproof.beside import beside
from stackproof.isolation import Marks, observe, question
from stackproof.isolation.scheduler import Schedule
from stackproof.model import EntryPoint, Signal
from stackproof.otlp import app_metrics, senders, synthetic
from stackproof.otlp.app_metrics import key_values
from stackproof.otlp.senders import ExportError
from stackproof.stack.base import Stack

#: The application's batches: OTEL_BSP_SCHEDULE_DELAY and its like for logs; its metric interval.
EXPORT_S, METRICS_S = 5.0, 10.0
#: What one look at each signal asks. A trace by its id: search shows only what was idle for 0.5 s.
PROBED = tuple(
    api for api in PROVABLE if api.id in {"mimir.query", "loki.query-range", "tempo.trace"}
)
_WORKERS = 8
#: A batch is made anew after this long, so that its times are not too far back.
_FRESH_S = 30.0
_PROBE_PAUSE_S, _LOOK_PAUSE_S, _LOOK_S = 0.1, 0.01, 10.0

#: The spans of one chat request, each with its kind and its share of the request's time, as
#: instrumented by FastAPI, SQLAlchemy, Redis and aiohttp: the first one is the others' parent.
_SPANS = (
    ("POST /api/chat/completions", Span.SPAN_KIND_SERVER, (0.0, 1.0)),
    ("connect", Span.SPAN_KIND_CLIENT, (0.01, 0.02)),
    ("SELECT openwebui", Span.SPAN_KIND_CLIENT, (0.02, 0.04)),
    ("SELECT openwebui", Span.SPAN_KIND_CLIENT, (0.04, 0.06)),
    ("HGET", Span.SPAN_KIND_CLIENT, (0.06, 0.07)),
    ("POST https://api.example.com/v1/chat/completions", Span.SPAN_KIND_CLIENT, (0.1, 0.9)),
    ("UPDATE openwebui", Span.SPAN_KIND_CLIENT, (0.92, 0.94)),
    ("POST /api/chat/completions http send", Span.SPAN_KIND_INTERNAL, (0.95, 0.96)),
    ("POST /api/chat/completions http send", Span.SPAN_KIND_INTERNAL, (0.99, 1.0)),
)
_STATEMENT = "SELECT chat.id, chat.user_id, chat.title, chat.chat FROM chat WHERE chat.id = %(id)s"
_LINES = (
    "POST /api/chat/completions HTTP/1.1 200",
    "get_all_models() fetched 14 models",
    "upsert_message_to_chat_by_id_and_message_id: done",
)


@dataclass(frozen=True, slots=True)
class Mix:
    """What one tenant's application does: chats a second, and routes with series of their own."""

    chats_per_s: float = 1.0
    routes: int = 20


#: Stands at the begin of every random id of a batch until it is sent.
_MARK = b"\xf1" * 7 + b"\x1f"


def _identity(count: int) -> bytes:
    return _MARK + secrets.token_bytes(count - len(_MARK))


class Batch:
    """One export, encoded once and sent many times: each time with other ids, at little cost.

    To encode thousands of spans a second would keep this process busier than the backends.
    """

    def __init__(self, message: Message) -> None:
        self._encoded = message.SerializeToString()
        self.made = time.monotonic()

    def SerializeToString(self) -> bytes:  # noqa: N802 - as a protobuf message has it
        """Return the export's bytes with fresh ids."""
        fresh = secrets.token_bytes(len(_MARK))
        text = secrets.token_hex(len(_MARK)).encode("ascii")
        return self._encoded.replace(_MARK, fresh).replace(_MARK.hex().encode("ascii"), text)

    def ByteSize(self) -> int:  # noqa: N802 - as a protobuf message has it
        """Return its length, which is the same each time."""
        return len(self._encoded)


def traces(tenant: str, chats: int, until_ns: int, over_s: float) -> ExportTraceServiceRequest:
    """Return the spans of so many chats, spread over the seconds before `until_ns`."""
    request = ExportTraceServiceRequest()
    part = request.resource_spans.add(resource=app_metrics.application(tenant))
    scope = part.scope_spans.add()
    scope.scope.name = "opentelemetry.instrumentation.fastapi"
    for chat in range(chats):
        trace, took = _identity(16), 800_000_000
        began = until_ns - took - int(over_s * 1e9 * chat / chats)
        root = secrets.token_bytes(8)
        for number, (name, kind, (begin, end)) in enumerate(_SPANS):
            span = scope.spans.add(
                trace_id=trace,
                span_id=secrets.token_bytes(8) if number else root,
                parent_span_id=root if number else b"",
                name=name,
                kind=kind,
                start_time_unix_nano=began + int(begin * took),
                end_time_unix_nano=began + int(end * took),
            )
            about = {"http.method": "POST", "http.route": "/api/chat/completions"}
            if "openwebui" in name:
                about = {"db.system": "postgresql", "db.statement": _STATEMENT}
            span.attributes.extend(key_values(about))
    return request


def logs(tenant: str, chats: int, until_ns: int, over_s: float) -> ExportLogsServiceRequest:
    """Return the lines of so many chats, spread over the seconds before `until_ns`."""
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add(resource=app_metrics.application(tenant)).scope_logs.add()
    scope.scope.name = "open_webui.main"
    for chat in range(chats):
        for line in _LINES:
            at = until_ns - int(over_s * 1e9 * chat / chats)
            record = scope.log_records.add(time_unix_nano=at, observed_time_unix_nano=at)
            record.body.string_value = f"{line} {_identity(16).hex()}"
            record.severity_text = "INFO"
            record.severity_number = SeverityNumber.SEVERITY_NUMBER_INFO
            record.trace_id, record.span_id = _identity(16), secrets.token_bytes(8)
            record.attributes.extend(key_values({"code.file.path": "open_webui/main.py"}))
    return request


@dataclass
class Sent:
    """What was sent in one stretch of load, all tenants together."""

    seconds: float = 0.0
    requests: int = 0
    chats: int = 0
    spans: int = 0
    lines: int = 0
    samples: int = 0
    series: int = 0
    """Active series, all tenants together."""
    bytes: dict[Signal, int] = field(default_factory=lambda: dict.fromkeys(Signal, 0))
    """Of OTLP, as sent: protobuf without compression."""
    refused: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Reasons why requests were not taken, and how often."""
    behind_s: float = 0.0
    """How late the latest request began."""


class _Load:
    """Sends for many tenants, each at its own times, until it is told to end."""

    def __init__(self, stack: Stack, client: Client, tenants: Sequence[str], mix: Mix) -> None:
        self.stack, self.client, self.tenants, self.mix = stack, client, tenants, mix
        self.sent = Sent()
        self._batches: dict[tuple[str, Signal, int], tuple[Batch, dict[str, int]]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._schedule = Schedule(_WORKERS)

    @contextmanager
    def running(self) -> Iterator[Sent]:
        began = time.monotonic()
        for number, tenant in enumerate(self.tenants):
            # Their exporters do not beat as one.
            share = number / len(self.tenants)
            self._add(tenant, (Signal.TRACES, Signal.LOGS), EXPORT_S, began + share * EXPORT_S)
            self._add(tenant, (Signal.METRICS,), METRICS_S, began + share * METRICS_S)
        try:
            with beside([partial(self._schedule.run, lambda: None)], self._ended.set):
                yield self.sent
        finally:
            self.sent.seconds = time.monotonic() - began

    def _add(self, tenant: str, signals: Sequence[Signal], every_s: float, due: float) -> None:
        carried = 0.0

        def task() -> float | None:
            nonlocal due, carried
            if self._ended.is_set():
                return None
            behind = time.monotonic() - due
            if behind < 0:
                return min(-behind, 0.1)  # to notice the end soon
            # What falls behind for longer than an interval skips one, as exporters do.
            carried += self.mix.chats_per_s * every_s
            chats, carried = int(carried), carried % 1
            with self.stack.sender(tenant, EntryPoint.GATEWAY, self.client) as exporter:
                for signal in signals:
                    self._send(exporter, tenant, signal, chats, every_s)
            with self._lock:
                self.sent.behind_s = max(self.sent.behind_s, behind)
            due = max(due + every_s, time.monotonic() - every_s)
            return max(0.0, min(due - time.monotonic(), 0.1))

        self._schedule.add(task, after_s=max(0.0, due - time.monotonic()))

    def _send(
        self, exporter: senders.Sender, tenant: str, signal: Signal, chats: int, every_s: float
    ) -> None:
        message, counts = self._batch(tenant, signal, chats, every_s)
        if not counts:
            return
        refused = ""
        try:
            exporter.send(signal, cast("Message", message))
        except ExportError as error:
            refused = error.what[:160]
        with self._lock:
            self.sent.requests += 1
            if refused:
                self.sent.refused[refused] += 1
                return
            self.sent.bytes[signal] += message.ByteSize()
            self.sent.chats += counts.get("chats", 0)
            self.sent.spans += counts.get("spans", 0)
            self.sent.lines += counts.get("lines", 0)
            self.sent.samples += counts.get("samples", 0)
            self.sent.series = counts.get("samples", 0) * len(self.tenants) or self.sent.series

    def _batch(
        self, tenant: str, signal: Signal, chats: int, every_s: float
    ) -> tuple[Batch, dict[str, int]]:
        """Return an export of this size; metrics have other values and times in every one."""
        key = (tenant, signal, chats)
        known = self._batches.get(key)
        if known and signal is not Signal.METRICS and time.monotonic() - known[0].made < _FRESH_S:
            return known
        message, counts = make(tenant, signal, chats, every_s, self.mix.routes)
        made = self._batches[key] = Batch(message), counts
        return made


def make(
    tenant: str, signal: Signal, chats: int, over_s: float, routes: int
) -> tuple[Message, dict[str, int]]:
    """Return one export of a tenant and what is in it; nothing where there were no chats."""
    now = time.time_ns()
    if signal is Signal.METRICS:
        message = app_metrics.busy(tenant, minutes=0, routes=routes)
        return message, {"samples": app_metrics.samples(message)}
    if not chats:
        return ExportTraceServiceRequest(), {}
    if signal is Signal.TRACES:
        counts = {"chats": chats, "spans": chats * len(_SPANS)}
        return traces(tenant, chats, now, over_s), counts
    return logs(tenant, chats, now, over_s), {"lines": chats * len(_LINES)}


def running(
    stack: Stack, client: Client, tenants: Sequence[str], mix: Mix
) -> AbstractContextManager[Sent]:
    """Send as these tenants for as long as the block lasts; the counts are final after it."""
    return _Load(stack, client, tenants, mix).running()


@contextmanager
def flooding(stack: Stack, client: Client, tenant: str, *, threads: int = 4) -> Iterator[Sent]:
    """Send as one tenant as fast as it goes, big batches of each signal, while the block lasts."""
    sent, lock, ended = Sent(), threading.Lock(), threading.Event()
    began = time.monotonic()

    def flood() -> None:
        # The same samples again and again would be no work: only metrics are made anew.
        batches = {s: Batch(make(tenant, s, 50, EXPORT_S, 50)[0]) for s in Signal}
        with stack.sender(tenant, EntryPoint.GATEWAY, client) as exporter:
            while not ended.is_set():
                for signal in Signal:
                    message = batches[signal]
                    if signal is Signal.METRICS:
                        message = Batch(make(tenant, signal, 50, EXPORT_S, 50)[0])
                    refused = ""
                    try:
                        exporter.send(signal, cast("Message", message))
                    except ExportError as error:
                        refused = error.what[:160]
                    with lock:
                        sent.requests += 1
                        sent.bytes[signal] += 0 if refused else message.ByteSize()
                        if refused:
                            sent.refused[refused] += 1

    try:
        with beside([flood] * threads, ended.set):
            yield sent
    finally:
        sent.seconds = time.monotonic() - began


def probe(
    stack: Stack, client: Client, tenants: Sequence[str], seconds: float
) -> dict[Signal, list[float]]:
    """Return for each signal how long each marked item took from acknowledged to visible [ms].

    One that is not visible within 10 s counts as that: the figures never look better for what is
    lost. One that was refused counts the same.
    """
    found: dict[Signal, list[float]] = {signal: [] for signal in Signal}
    lock = threading.Lock()
    ends = time.monotonic() + seconds

    def work(tenant: str) -> None:
        access = stack.reader(tenant)
        with stack.sender(tenant, EntryPoint.GATEWAY, client) as exporter:
            while time.monotonic() < ends:
                emission = synthetic.new_emission(tenant, synthetic.new_run())
                marks = Marks({tenant: emission})
                for api in PROBED:
                    emission = replace(emission, sent_ns=time.time_ns())
                    waited = _LOOK_S * 1000
                    try:
                        exporter.send(api.signal, synthetic.make(emission, api.signal))
                    except ExportError:
                        pass
                    else:
                        began = time.monotonic()
                        while time.monotonic() - began < _LOOK_S:
                            answer = client.ask(api, access, question(emission))
                            if observe(api, tenant, tenant, answer, marks).own:
                                waited = (time.monotonic() - began) * 1000
                                break
                            time.sleep(_LOOK_PAUSE_S)
                    with lock:
                        found[api.signal].append(waited)
                time.sleep(_PROBE_PAUSE_S)

    with beside([partial(work, each) for each in tenants], lambda: None):
        pass  # each ends by itself
    return found
