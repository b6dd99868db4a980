"""Telemetry that can be counted: every trace, metric point and log line of a tenant has a number.

A :class:`Source` sends 1, 2, 3, … and keeps which numbers were acknowledged; `arrived` reads back
how often each number is there, and whose it is. So "nothing is lost, nothing is there twice,
nothing is with somebody else" is a comparison of two lists.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from stackproof.backends import Client
from stackproof.beside import beside
from stackproof.errors import StackproofError
from stackproof.model import Access, Backend, EntryPoint, Signal
from stackproof.otlp import senders, synthetic
from stackproof.otlp.app_metrics import key_values
from stackproof.otlp.senders import ExportError
from stackproof.stack.base import Stack

#: A metric whose value is the number.
METRIC = "stackproof.number"
#: Tempo acknowledges a span when it is in memory, and writes it when its trace has been idle for
#: 0.5 s, which it checks each 0.5 s: a killed Tempo loses what it was given since.
TEMPO_LOSS_S = 1.5
#: A Tempo that is told to end writes once, and then takes what it never writes for as long.
TEMPO_ENDS_S = 3.0
_NUMBER = re.compile(r"number=(\d+) tenant=(\S+)")
_PART = 2_000


def _attributes(**values: str) -> list[KeyValue]:
    return key_values({key.replace("_", "."): value for key, value in values.items()})


def numbered(
    signal: Signal, tenant: str, run: str, number: int, at_ns: int = 0, size: int = 0
) -> Message:
    """Return one export request: one span, one point or one line with this number, of this time.

    Args:
        signal: Whether it is a span, a point or a line.
        tenant: Who sends it.
        run: The id of the run.
        number: Its number.
        at_ns: Its time; 0 is now.
        size: How many bytes it has at least, in attributes below the 2,048 bytes that are kept. A
            point has one of these at most, as Mimir makes a label of each.
    """
    at = at_ns or time.time_ns()
    resource = Resource(
        attributes=_attributes(service_name="open-webui", service_instance_id=f"counted-{run}")
    )
    mark = _attributes(stackproof_run=run, stackproof_owner=tenant)
    parts = range(0, size if signal is Signal.TRACES else min(size, 1), _PART)
    padding = _attributes(**{f"part_{each}": "x" * min(size - each, _PART) for each in parts})
    if signal is Signal.TRACES:
        spans = ExportTraceServiceRequest()
        span = spans.resource_spans.add(resource=resource).scope_spans.add().spans.add()
        span.trace_id, span.span_id = trace_id(run, tenant, number), secrets.token_bytes(8)
        span.name, span.kind = f"number={number} tenant={tenant}", span.SPAN_KIND_SERVER
        span.start_time_unix_nano, span.end_time_unix_nano = at - 10**6, at
        span.attributes.extend([*mark, *padding])
        return spans
    if signal is Signal.METRICS:
        points = ExportMetricsServiceRequest()
        metric = points.resource_metrics.add(resource=resource).scope_metrics.add().metrics.add()
        metric.name = METRIC
        metric.gauge.data_points.add(as_double=number, time_unix_nano=at, attributes=mark + padding)
        return points
    lines = ExportLogsServiceRequest()
    record = lines.resource_logs.add(resource=resource).scope_logs.add().log_records.add()
    record.time_unix_nano = record.observed_time_unix_nano = at
    record.body.string_value = f"number={number} tenant={tenant} ".ljust(size, "x").strip()
    record.severity_text, record.severity_number = "INFO", SeverityNumber.SEVERITY_NUMBER_INFO
    record.attributes.extend(mark)
    return lines


def trace_id(run: str, tenant: str, number: int) -> bytes:
    """Return the id of the trace with this number: no leading zero, and no tenant's but its own."""
    owner = sum(tenant.encode("ascii")) % 2**16
    return bytes.fromhex(f"f{run[:15]}{owner:04x}{number:012x}")


@dataclass
class Source:
    """One tenant's application: sends all signals, number after number, until it is told to end."""

    tenant: str
    run: str
    pause_s: float = 0.1
    taken: dict[Signal, dict[int, float]] = field(
        default_factory=lambda: {signal: {} for signal in Signal}
    )
    """For each signal the numbers that were acknowledged, and when (`time.monotonic()`)."""
    attempts: dict[Signal, list[tuple[float, bool]]] = field(
        default_factory=lambda: {signal: [] for signal in Signal}
    )
    """For each signal when a number was sent, and whether it was acknowledged."""
    refused: Counter[str] = field(default_factory=Counter)
    """Reasons why numbers were not acknowledged."""
    _ended: threading.Event = field(default_factory=threading.Event)

    def send(self, exporter: senders.Sender) -> None:
        """Send until `end` is called. What is refused is not sent again: it has no number then."""
        number = 0
        while not self._ended.wait(self.pause_s):
            number += 1
            for signal in Signal:
                began, before = time.monotonic(), len(self.taken[signal])
                try:
                    exporter.send(
                        signal, numbered(signal, self.tenant, self.run, number), timeout_s=5
                    )
                except ExportError as error:
                    self.refused[error.what[:200]] += 1
                else:
                    self.taken[signal][number] = time.monotonic()
                self.attempts[signal].append((began, len(self.taken[signal]) > before))

    def end(self) -> None:
        """Let `send` return after the number that it is at."""
        self._ended.set()


@contextmanager
def sending(
    stack: Stack,
    client: Client,
    tenants: Sequence[str],
    *,
    entry_point: EntryPoint = EntryPoint.ALLOY_GRPC,
    pause_s: float = 0.1,
) -> Iterator[dict[str, Source]]:
    """Send as each tenant, one thread each, for as long as the block lasts."""
    run = synthetic.new_run()
    sources = {tenant: Source(tenant, run, pause_s) for tenant in tenants}
    with ExitStack() as senders_open:
        opened = {
            tenant: senders_open.enter_context(stack.sender(tenant, entry_point, client))
            for tenant in sources
        }
        works = [partial(sources[tenant].send, each) for tenant, each in opened.items()]

        def end() -> None:
            for source in sources.values():
                source.end()

        with beside(works, end):
            yield sources


def arrived(
    client: Client,
    access: Access,
    signal: Signal,
    run: str,
    *,
    window_s: float = 3600,
    end_s: float | None = None,
) -> Counter[tuple[str, int]]:
    """Return how often each (owner, number) of a run is there for this reader.

    Raises:
        StackproofError: The backend did not answer.
    """
    now = end_s or time.time()
    start, end = str(int(now - window_s)), str(int(now) + 60)
    if signal is Signal.METRICS:
        query = f'{METRIC.replace(".", "_")}{{stackproof_run="{run}"}}[{int(window_s)}s]'
        asked = {"query": query, "time": f"{now:.3f}"}
        answer = client.data(access, Backend.MIMIR, "/api/v1/query", asked)
        return Counter(
            (series["metric"]["stackproof_owner"], int(value))
            for series in answer["data"]["result"]
            for _, value in series["values"]
        )
    if signal is Signal.LOGS:
        found = _lines_of(client, access, run, int((now - window_s) * 1e9), int((now + 60) * 1e9))
        return Counter(_number(line) for _, _, line in found)
    query = f'{{ span.stackproof.run = "{run}" }}'
    params = {"q": query, "start": start, "end": end, "limit": "10000", "spss": "10"}
    answer = client.data(access, Backend.TEMPO, "/api/search", params)
    spans: Counter[tuple[str, int]] = Counter()
    for trace in answer["traces"]:
        spans[_number(trace["rootTraceName"])] += int(trace["spanSets"][0]["matched"])
    return spans


#: So many lines Loki gives at most in one answer (`max_entries_limit_per_query`).
_LINES = 5_000


def _lines_of(
    client: Client, access: Access, run: str, start_ns: int, end_ns: int
) -> set[tuple[str, int, str]]:
    """Return a run's lines, each with its stream and time: asked for in as many pieces as it takes.

    Of lines that are the same in all three, Loki keeps one.
    """
    query = {"query": f'{{service_instance_id="counted-{run}"}}', "direction": "forward"}
    found: set[tuple[str, int, str]] = set()
    while True:
        piece = {"start": str(start_ns), "end": str(end_ns), "limit": str(_LINES)}
        answer = client.data(access, Backend.LOKI, "/loki/api/v1/query_range", query | piece)
        lines = [
            (json.dumps(stream["stream"], sort_keys=True), int(at), line)
            for stream in answer["data"]["result"]
            for at, line, *_ in stream["values"]
        ]
        found.update(lines)
        if len(lines) < _LINES:
            return found
        last = max(at for _, at, _ in lines)
        if last == start_ns:
            raise StackproofError(f"more than {_LINES} lines of one moment", where=f"run {run}")
        start_ns = last  # its own lines may go on in the next piece


def lines(
    client: Client, access: Access, text: str, *, run: str = "", window_s: float = 600
) -> Counter[str]:
    """Return how often each log line with this text is there for this reader.

    In any stream, or in that of a run.

    Raises:
        StackproofError: Loki did not answer.
    """
    now = time.time()
    wanted = f"counted-{run}" if run else ".*"
    params = {
        "query": f'{{service_name=~".+", service_instance_id=~"{wanted}"}} |= "{text}"',
        "start": str(int(now - window_s)),
        "end": str(int(now) + 60),
        "limit": "1000",
    }
    answer = client.data(access, Backend.LOKI, "/loki/api/v1/query_range", params)
    return Counter(line for stream in answer["data"]["result"] for _, line, *_ in stream["values"])


def latest(client: Client, access: Access, name: str, run: str) -> float | None:
    """Return the last value of a run's one series with this name, None while there is none.

    Raises:
        StackproofError: Mimir did not answer.
    """
    query = {"query": f'{name}{{stackproof_run="{run}"}}'}
    found = client.data(access, Backend.MIMIR, "/api/v1/query", query)["data"]["result"]
    return float(found[0]["value"][1]) if found else None


_RECEIVED = re.compile(
    r'^loki_distributor_lines_received_total\{.*\btenant="([^"]+)".*\} (\S+)$', re.MULTILINE
)


def lines_received(stack: Stack, client: Client, tenant: str) -> float:
    """Return how many lines Loki has been sent as a tenant, those that it had already included.

    Of lines that are the same in text, time and labels Loki keeps one: what is read back does not
    show that a line was sent twice.
    """
    url = f"{stack.backend_url(Backend.LOKI)}/metrics"
    text = client.pool.request("GET", url, timeout=10, retries=False).data.decode()
    return sum(float(count) for owner, count in _RECEIVED.findall(text) if owner == tenant)


def _number(text: str) -> tuple[str, int]:
    found = _NUMBER.search(text)
    if found is None:
        raise StackproofError(f"{text!r} has no number", where="counted telemetry")
    return found[2], int(found[1])
