"""Limits form a chain: what an Alloy may send at once, everything behind it takes, of each signal.

A batch that is larger than what takes it has been acknowledged and never arrives: Alloy sends it
again for an hour, with others stuck behind it, and drops it (grafana/alloy#4000,
opentelemetry-collector#14298). Receivers count in bytes, on the wire, unpacked, and once more with
what they add themselves; so does every link here. What is smallest on the wire grows most: the
figures are of the smallest record that an SDK makes, and are computed from OTLP's own messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from stackproof.helm.manifests import Release, amount, at, containers, memory_limit

from . import accounts, lgtm
from .alloy import Alloy, alloy_settings

MIB = 2**20
_OTLP_HTTP = "distributor.receivers.otlp.protocols.http"
#: What programs take where their configuration says nothing [bytes]; they are asked in
#: tests/e2e/local/test_program_defaults.py.
DEFAULTS: Mapping[tuple[str, str], int] = {
    ("alloy", "grpc.max_recv_msg_size"): 4 * MIB,
    ("alloy", "http.max_request_body_size"): 20 * MIB,
    ("mimir", "distributor.max_otlp_request_size"): 100 * MIB,
    ("mimir", "distributor.max_recv_msg_size"): 100 * MIB,
    ("mimir", "server.grpc_server_max_recv_msg_size"): 100 * MIB,
    ("loki", "distributor.max_recv_msg_size"): 100 * MIB,
    ("loki", "distributor.max_decompressed_size"): 5000 * MIB,
    ("loki", "server.grpc_server_max_recv_msg_size"): 4 * MIB,
    ("loki", "limits_config.max_structured_metadata_entries_count"): 128,
    ("loki", "limits_config.per_stream_rate_limit"): 3 * MIB,
    ("loki", "limits_config.per_stream_rate_limit_burst"): 15 * MIB,
    ("tempo", "server.grpc_server_max_recv_msg_size"): 16 * MIB,
    # Its receiver is a collector's.
    ("tempo", f"{_OTLP_HTTP}.max_request_body_size"): 20 * MIB,
}
#: A line of which there are many: shorter than any that has a time in it [bytes].
LINE = 20
#: How many times a message is in memory at once: as it came, unpacked, as it goes on, one more.
_COPIES = 4
#: Alloy's requests that are under way for each signal (`num_consumers` of a sending_queue).
_REQUESTS = 10
_TIME = 1_800_000_000_000_000_000


def _in_list(message: Any) -> int:
    """Return what a message takes in a list of such: with its tag and its length [bytes]."""
    size: int = message.ByteSize()
    return size + 2


def _record() -> int:
    record = LogRecord(time_unix_nano=_TIME, observed_time_unix_nano=_TIME, severity_text="INFO")
    record.severity_number = SeverityNumber.SEVERITY_NUMBER_INFO
    record.body.string_value = "x" * LINE
    return _in_list(record)


def _sample() -> float:
    """A histogram of one bucket is three series: the bucket, the sum and the count."""
    label = KeyValue(key="k", value=AnyValue(string_value="1234"))
    point = HistogramDataPoint(time_unix_nano=_TIME, sum=1.0, attributes=[label])
    return _in_list(point) / 3


def _span() -> int:
    span = Span(trace_id=b"x" * 16, span_id=b"x" * 8, name="x")
    span.start_time_unix_nano = span.end_time_unix_nano = _TIME
    return _in_list(span)


#: On the wire [bytes].
RECORD, SAMPLE, SPAN = _record(), _sample(), _span()
#: Names and values that Loki makes of a record's fields and its scope, and counts [bytes].
_LOKI_FIELDS = len("observed_timestamp" + str(_TIME) + "severity_number9severity_textINFO") + 64
#: So many attributes Loki makes of a record's fields, its scope's, and by itself (detected_level).
_LOKI_OWN = 7 + 3 + 1
#: The smallest attribute, as Alloy counts the bytes of all.
_SMALLEST = len('"k":"",')
#: The longest name of an attribute: 511 characters.
_NAME = 511 * 4
#: Beside what Loki counts, in its own messages: times, tags, lengths, `detected_level` [bytes].
_LOKI_INSIDE = 120
#: Labels that Mimir gives each series: job (two names), instance, three promoted attributes of the
#: resource, each cut as Alloy cuts it, and their names [bytes].
_MIMIR_NAMES, _MIMIR_VALUES = 200, 6
#: What a line takes in a push beside its bytes: time, tag, length [bytes].
_PUSHED = 15
#: A series that Tempo makes of spans: the name of one, of a service, and the rest; and one that a
#: backend has of itself [bytes].
_SPAN_SERIES, _SCRAPED_SERIES = 2048 + 256 + 256, 1024
#: So many times what is sent is in memory, where it is nothing but the smallest parts: empty series
#: in Mimir 3.0.5 are 580 times as large, and nothing in Loki or Tempo is larger.
_MADE_OF_IT = 600


def counted_by_loki(batch: float, resource: float) -> float:
    """Return what of a tenant's burst a batch of short lines takes [bytes]."""
    return batch / RECORD * (LINE + _LOKI_FIELDS + resource) if batch else 0


def inside_loki(batch: float, resource: float) -> float:
    """Return how large a batch of short lines is between Loki's parts [bytes]."""
    return counted_by_loki(batch, resource) + batch / RECORD * _LOKI_INSIDE


@dataclass(frozen=True)
class Link:
    """Something that is sent, and what takes it."""

    what: str
    size: float
    where: str
    limit: float
    unit: str = "bytes"

    def __str__(self) -> str:
        return f"{self.what} can be {self.size:,.0f} {self.unit}, {self.where} is {self.limit:,.0f}"

    @property
    def holds(self) -> bool:
        """Whether it is taken."""
        return self.size <= self.limit


def links(stack: Release, release: Release) -> Iterator[Link]:
    """Yield the chain of what one release sends: a tenant's Alloy, or the stack's own monitor.

    Args:
        stack: Of charts/lgtm, which takes it.
        release: The stack itself, or a tenant's.
    """
    alloy = Alloy.of(release)
    if alloy is not None:
        workload = next(m for m in release.workloads() if containers(m)[0]["name"] == "alloy")
        yield from inside_alloy(alloy, memory_limit(containers(workload)[0]))
        yield from _exported(release, alloy)
        yield from behind(stack, Batch.of(alloy))
    if release is stack:
        text = release.file("monitor", "config.alloy") or ""
        yield from behind(stack, Batch.of(Alloy(alloy_settings(text), {}, {})))


def broken(links: Iterable[Link]) -> Iterator[str]:
    """Yield the links that do not hold, with their figures."""
    yield from (str(link) for link in links if not link.holds)


# --- What an Alloy sends ------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """What one Alloy can send at once [bytes]."""

    batch: float
    """Of OTLP, of any signal."""
    resource: Mapping[str, float]
    """Attributes of the resource of logs and of traces, all together."""
    value: float
    """One attribute of the resource of metrics."""
    attributes: float
    """How many attributes a line can have, with those of its resource and its scope."""
    pod_logs: float
    """Of lines of pods, 0 if it reads none."""
    samples: float
    """Of scraped samples, 0 if it scrapes nothing."""

    @classmethod
    def of(cls, alloy: Alloy) -> Batch:
        """Read it off an Alloy's files; what nothing limits is infinite."""
        writes, scraped = (sorted(alloy.components(kind)) for kind in _WRITERS)
        queued = "endpoint.queue_config.max_samples_per_send"  # 2000 is Prometheus' own default
        return cls(
            max((_batch(alloy, name) for name in _exporters(alloy)), default=0),
            {signal: _cut(alloy, signal, "resource", _KEEP) for signal in ("log", "trace")},
            _cut(alloy, "metric", "resource", _TRUNCATE),
            _cut(alloy, "log", "log", _LIMIT)
            + _cut(alloy, "log", "scope", _LIMIT)
            + _cut(alloy, "log", "resource", _AS_TEXT) / _SMALLEST,
            max((_size(alloy, f"{one}.endpoint.batch_size", MIB) for one in writes), default=0),
            max((_size(alloy, f"{one}.{queued}", 2000) for one in scraped), default=0),
        )


_WRITERS = ("loki.write", "prometheus.remote_write")
_KEEP = re.compile(r"keep_keys\(attributes, .*\) where Len\(String\(attributes\)\) > (\d+)")
#: Of text: Loki makes several attributes of one that is a map.
_AS_TEXT = re.compile(r'"stringify_all\(attributes\)".*' + _KEEP.pattern)
_LIMIT = re.compile(r'"stringify_all\(attributes\)".*limit\(attributes, (\d+), \[\]\)')
_TRUNCATE = re.compile(r"truncate_all\(attributes, (\d+)\)")
_BODY = re.compile(
    r"set\(body\.string, Substring\(body\.string, 0, (\d+), .*\)\) where Len\(body\.string\) > \1\b"
)
_DELETE = re.compile(
    r'delete_matching_keys\(attributes, "\.\*"\) where Len\(String\(attributes\)\) > (\d+)'
)


def _exporters(alloy: Alloy) -> list[str]:
    return sorted(alloy.components("otelcol.exporter.otlphttp"))


def _size(alloy: Alloy, path: str, default: float) -> float:
    text = alloy.settings.get(path, "").strip('"').removesuffix("B")
    return amount(text) if text else default


def _cut(alloy: Alloy, signal: str, context: str, statement: re.Pattern[str]) -> float:
    """Return to what a statement of any transform limits something, infinity if none does."""
    found = [
        float(one[1])
        for path, text in alloy.settings.items()
        if re.search(rf"\.{signal}_statements(#\d+)?\.statements$", path)
        and alloy.value(path.replace(".statements", ".context")) == context
        and (one := statement.search(text))
    ]
    return min(found, default=float("inf"))


def _received(alloy: Alloy) -> Mapping[str, float]:
    """Return the largest request that each protocol takes."""
    names = ("grpc.max_recv_msg_size", "http.max_request_body_size")
    place = "otelcol.receiver.otlp.default"
    return {n: _size(alloy, f"{place}.{n}", DEFAULTS["alloy", n]) for n in names}


def _batch(alloy: Alloy, exporter: str) -> float:
    """Return the largest batch: of one counted in items, each may be as large as a request."""
    place = f"{exporter}.sending_queue.batch"
    most = float(alloy.settings.get(f"{place}.max_size", 0)) or float("inf")
    if alloy.value(f"{place}.sizer") != "bytes":
        most *= max(_received(alloy).values())
    return most


def inside_alloy(alloy: Alloy, memory: float) -> Iterator[Link]:
    """Yield the links from what is received to a batch.

    Args:
        alloy: Its files.
        memory: The limit of its container [bytes].
    """
    sent = Batch.of(alloy)
    log = sum(
        _cut(alloy, "log", where, cut)
        for where, cut in (("log", _BODY), ("log", _DELETE), ("resource", _KEEP))
    )
    span = sum(
        _cut(alloy, "trace", where, cut) for where, cut in (("span", _DELETE), ("resource", _KEEP))
    )
    point = _cut(alloy, "metric", "datapoint", _LIMIT) * (
        _NAME + _cut(alloy, "metric", "datapoint", _TRUNCATE)
    ) + _cut(alloy, "metric", "resource", _AS_TEXT)
    received = _received(alloy)
    for exporter in _exporters(alloy):
        queue = f"{exporter}.sending_queue"
        batch = f"max_size of {exporter}'s batch"
        size = _batch(alloy, exporter)
        # What is larger is dropped, and the rest of its request too (collector#15936).
        yield Link("one log record", log, batch, size)
        yield Link("one span", span, batch, size)
        yield Link("one point", point, batch, size)
        least = float(alloy.settings.get(f"{queue}.queue_size", 0))
        for name, largest in received.items():
            yield Link(f"a request ({name})", largest, f"queue_size of {exporter}", least)
        held = 3 * _REQUESTS * size + _COPIES * max(received.values())
        yield Link("what an Alloy holds", held, "its memory limit", memory)
    if sent.pod_logs:
        yield from _patience(alloy)


def _exported(release: Release, alloy: Alloy) -> Iterator[Link]:
    """An application that exports lines as long as they are kept is not refused."""
    line = _cut(alloy, "log", "log", _BODY)
    for container in (each for one in release.workloads() for each in containers(one)):
        given = release.env_values(container)
        if container["name"] == "open-webui" and given.get("ENABLE_OTEL") == "true":
            for kind in ("BLRP", "BSP"):
                # OpenTelemetry's own default is 512.
                name = f"OTEL_{kind}_MAX_EXPORT_BATCH_SIZE"
                size = int(given.get(name) or 512) * line
                for receiver, largest in _received(alloy).items():
                    yield Link(f"an export ({name})", size, f"Alloy's {receiver}", largest)


def _patience(alloy: Alloy) -> Iterator[Link]:
    """Pod logs are tried again for as long as all else (dskit's backoff doubles each time)."""
    known = dict(accounts.patience(alloy))
    longest = max((known[name].total_seconds() for name in _exporters(alloy)), default=0)
    for write in sorted(alloy.components("loki.write")):
        waited = known[write].total_seconds()
        yield Link("an outage", longest, f"the patience of {write}", waited, "seconds")


# --- What the backends take ---------------------------------------------------------------------


def _taken(stack: Release, backend: str, path: str) -> float:
    """Return a limit of a backend, its default where nothing is said [bytes]."""
    return float(at(lgtm.config(stack, backend), path) or DEFAULTS[backend, path])


def _gateway(stack: Release) -> float | None:
    """Return the largest body that the gateway passes on [bytes], None without a gateway."""
    text = stack.file("gateway", "Caddyfile")
    if text is None:
        return None
    found = re.search(r"max_size (\d+[KMG]iB)", text)
    return amount(found[1].removesuffix("B")) if found else float("inf")


def behind(stack: Release, sent: Batch) -> Iterator[Link]:
    """Yield the links from a batch to what the gateway and the backends of a stack keep of it."""
    gateway = _gateway(stack)
    if gateway is not None:
        yield Link("a batch", max(sent.batch, sent.pod_logs), "the gateway's maxBodySize", gateway)
    for backend, find in (("loki", _loki), ("tempo", _tempo), ("mimir", _mimir)):
        if stack.find("ConfigMap", backend):
            yield from find(stack, sent)


def _loki(stack: Release, sent: Batch) -> Iterator[Link]:
    body = _taken(stack, "loki", "distributor.max_decompressed_size")
    inside = _taken(stack, "loki", "server.grpc_server_max_recv_msg_size")
    grpc = "Loki's grpc_server_max_recv_msg_size"
    loki = stack.get("StatefulSet", "loki")
    count = "max_structured_metadata_entries_count"
    most = _taken(stack, "loki", f"limits_config.{count}")
    line = sent.attributes + _LOKI_OWN if sent.batch else 0
    yield Link("one line", line, f"Loki's {count}", most, "attributes")
    yield Link("a batch of logs", sent.batch, "Loki's max_decompressed_size", body)
    # Once more with what Loki adds to each line.
    yield Link("a batch of logs", inside_loki(sent.batch, sent.resource["log"]), grpc, inside)
    yield Link("a push", body / (LINE + _PUSHED) * (LINE + _LOKI_INSIDE), grpc, inside)
    lines = sent.pod_logs / LINE
    yield Link(
        "a batch of pod logs", lines * (LINE + _PUSHED), "Loki's max_decompressed_size", body
    )
    yield Link("a batch of pod logs", lines * (LINE + _LOKI_INSIDE), grpc, inside)
    memory = memory_limit(containers(loki)[0])
    yield Link("what Loki makes of a push", _MADE_OF_IT * body, "its memory limit", memory)
    yield Link(f"{_COPIES} answers", _COPIES * inside, "Loki's memory limit", memory)
    counted = max(counted_by_loki(sent.batch, sent.resource["log"]), sent.pod_logs)
    for tenant, limits in lgtm.limits(stack, "loki").items():
        burst = float(limits["ingestion_burst_size_mb"]) * MIB
        yield Link("a batch of logs", counted, f"{tenant}'s burst at Loki", burst)
        for what, own in (
            ("per_stream_rate_limit", float(limits["ingestion_rate_mb"]) * MIB),
            ("per_stream_rate_limit_burst", burst),
        ):
            stream = limits.get(what, DEFAULTS["loki", f"limits_config.{what}"])
            yield Link(f"all of {tenant}'s logs", own, f"its {what}", float(stream))


def _tempo(stack: Release, sent: Batch) -> Iterator[Link]:
    inside = _taken(stack, "tempo", "server.grpc_server_max_recv_msg_size")
    grpc = "Tempo's grpc_server_max_recv_msg_size"
    body = _taken(stack, "tempo", f"{_OTLP_HTTP}.max_request_body_size")
    yield Link("a batch of spans", sent.batch, "Tempo's max_request_body_size", body)
    memory = memory_limit(containers(stack.get("StatefulSet", "tempo"))[0])
    yield Link("what Tempo makes of an export", _MADE_OF_IT * body, "its memory limit", memory)
    # Each trace has its resource again.
    spread = sent.batch / SPAN * (SPAN + sent.resource["trace"]) if sent.batch else 0
    yield Link("a batch of spans", spread, grpc, inside)
    for tenant, limits in lgtm.limits(stack, "tempo").items():
        burst = float(at(limits, "ingestion.burst_size_bytes"))
        yield Link("a batch of spans", sent.batch, f"{tenant}'s burst at Tempo", burst)
        yield Link(f"{tenant}'s burst at Tempo", burst, grpc, inside)


def _mimir(stack: Release, sent: Batch) -> Iterator[Link]:
    body = _taken(stack, "mimir", "distributor.max_otlp_request_size")
    inside = _taken(stack, "mimir", "server.grpc_server_max_recv_msg_size")
    written = _taken(stack, "mimir", "distributor.max_recv_msg_size")
    samples = sent.batch / SAMPLE
    yield Link("a batch of metrics", sent.batch, "Mimir's max_otlp_request_size", body)
    for what, most, series in (
        ("Tempo", max(_remote_written(stack), default=0), _SPAN_SERIES),
        ("the monitor", sent.samples, _SCRAPED_SERIES),
    ):
        yield Link(
            f"what {what} writes at once", most * series, "Mimir's max_recv_msg_size", written
        )
    memory = memory_limit(containers(stack.get("StatefulSet", "mimir"))[0])
    made = _MADE_OF_IT * max(body, written)
    yield Link("what Mimir makes of an export", made, "its memory limit", memory)
    # Once more with all its labels in each series; where nothing is sent, nothing is cut.
    labels = _MIMIR_NAMES + _MIMIR_VALUES * sent.value if samples else 0
    grpc = "Mimir's grpc_server_max_recv_msg_size"
    yield Link("a batch of metrics", sent.batch + samples * labels, grpc, inside)
    largest = max([samples, sent.samples, *_remote_written(stack)])
    for tenant, limits in lgtm.limits(stack, "mimir").items():
        burst = float(limits["ingestion_burst_size"])
        yield Link("a batch of metrics", largest, f"{tenant}'s burst at Mimir", burst, "samples")


def _remote_written(stack: Release) -> Iterator[float]:
    """Yield how many samples Tempo writes at once of what it makes of spans."""
    tempo = lgtm.config(stack, "tempo") if stack.find("ConfigMap", "tempo") else {}
    for write in at(tempo, "metrics_generator.storage.remote_write") or ():
        # Prometheus' own default.
        yield float(at(write, "queue_config.max_samples_per_send") or 2000)
