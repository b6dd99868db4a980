"""What was acknowledged is there, once, and with nobody else: whatever dies, floods or sends junk.

Every tenant sends numbered traces, points and lines to its Alloy all the while, and what is there
afterwards is compared with what was acknowledged. What is lost by design is in docs/resilience.md,
with the numbers that are asserted here.
"""

from __future__ import annotations

import os
import re
import signal as signals
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Sum
from tests.disks import full, small_disk
from tests.e2e.counted import all_there
from urllib3.exceptions import ReadTimeoutError

from stackproof.backends import Client, poll
from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.isolation import delivery
from stackproof.isolation.delivery import (
    TEMPO_ENDS_S,
    TEMPO_LOSS_S,
    Source,
    arrived,
    numbered,
    sending,
)
from stackproof.model import Backend, EntryPoint, Signal
from stackproof.otlp import senders, synthetic
from stackproof.otlp.senders import ExportError
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import load_registry
from stackproof.stack.local import LocalStack
from stackproof.waiting import until

pytestmark = [pytest.mark.needs_restart, pytest.mark.xdist_group("resilience")]

TENANTS = load_registry(Checkout.find()).names
SIGNALS = {"mimir": Signal.METRICS, "loki": Signal.LOGS, "tempo": Signal.TRACES}
BACKENDS = tuple(SIGNALS)
VICTIM = TENANTS[1]
PATIENCE_S = 90.0
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
#: How soon what is sent must be visible while something else is out of order.
SOON_S = 10.0


#: What a tenant of the stack under test may send: an hour's worth of the defaults in a minute.
FAST: Mapping[str, Mapping[str, float]] = {
    "metrics": {"samplesPerSecond": 100_000},
    "logs": {"megabytesPerSecond": 4},
    "traces": {"bytesPerSecond": 15_000_000},
}


@pytest.fixture(scope="module")
def running() -> Iterator[LocalStack]:
    deployment = Deployment.load(Checkout.find())
    with LocalStack(deployment.with_values(lgtm=[{"defaults": {"limits": FAST}}])) as stack:
        yield stack


def _alloy(stack: LocalStack, tenant: str) -> str:
    namespace = load_registry(Checkout.find()).get(tenant).namespace
    (name,) = (n for n in stack.components if n.endswith(f"alloy.{namespace}"))
    return name


def _kill(stack: LocalStack, *components: str) -> float:
    for component in components:
        stack.process(component).signal(signals.SIGKILL)
    return time.monotonic()


@pytest.mark.parametrize("component", [*BACKENDS, "gateway", "alloy"])
def test_what_is_killed_loses_nothing(component: str, running: LocalStack, client: Client) -> None:
    name = _alloy(running, VICTIM) if component == "alloy" else component
    with sending(running, client, TENANTS) as sources:
        time.sleep(2)
        killed = _kill(running, name)
        time.sleep(1)
        running.restart(name)
        time.sleep(2)

    def may_lack(signal: Signal, taken: float) -> bool:
        lossy = component == "tempo" and signal is Signal.TRACES
        return lossy and killed - TEMPO_LOSS_S < taken < killed + 0.1

    all_there(running, client, sources, may_lack)


@pytest.mark.xdist_group("queues")
def test_alloy_keeps_what_no_backend_takes_even_if_it_is_killed(
    running: LocalStack, client: Client
) -> None:
    killed = _kill(running, *BACKENDS)
    with sending(running, client, TENANTS, pause_s=0.2) as sources:
        time.sleep(10)
        _kill(running, _alloy(running, VICTIM))
        running.restart(_alloy(running, VICTIM))
        time.sleep(8)
    assert time.monotonic() - killed > 18
    for backend in BACKENDS:
        running.restart(backend)
    all_there(running, client, sources)
    # All of it was acknowledged, also while nobody was there to take it.
    assert all(len(s.taken[Signal.LOGS]) > 40 for t, s in sources.items() if t != VICTIM)


#: Number and size [bytes] of what is sent while nothing takes it. In an outage of half a minute, at
#: the rates that limits allow, as much is queued (300 lines a second of 3 KB, spans of 10 KB); how
#: long it took makes no difference to Alloy. A prompt of open-webui can have 100 KB.
MUCH: Mapping[Signal, Sequence[tuple[int, int]]] = {
    Signal.LOGS: [(2_000, 3_000), (60, 100_000)],
    Signal.TRACES: [(2_200, 10_000), (40, 100_000)],
    Signal.METRICS: [(2_000, 1_500)],
}
#: Alloy has ten requests under way for each signal. Only when all of them wait, it makes larger
#: batches of what comes then: one batch each, for as long as a batch takes to be made (0.2 s).
UNDER_WAY, EACH_S = 12, 0.25


@pytest.mark.xdist_group("queues")
def test_much_is_queued_and_all_of_it_arrives(running: LocalStack, client: Client) -> None:
    """As many bytes as an outage leaves behind, of all signals, in large lines and spans too."""
    runs, began = {signal: synthetic.new_run() for signal in Signal}, time.time_ns()
    sent: dict[Signal, Counter[tuple[str, int]]] = {signal: Counter() for signal in Signal}

    def give(signal: Signal, count: int, size: int) -> None:
        first = len(sent[signal]) + 1
        numbers = range(first, first + count)
        much = _together(signal, repeat(runs[signal]), numbers, size, began)
        opened.send(signal, much, timeout_s=30)
        sent[signal] += Counter({(VICTIM, number): 1 for number in numbers})

    others = [tenant for tenant in TENANTS if tenant != VICTIM]
    with sending(running, client, others) as sources:
        _kill(running, *BACKENDS)
        with running.sender(VICTIM, EntryPoint.ALLOY_GRPC, client) as opened:
            for _ in range(UNDER_WAY):
                for signal in Signal:
                    give(signal, 1, 0)
                time.sleep(EACH_S)
            for signal, amounts in MUCH.items():
                for count, size in amounts:
                    for _ in range(20):
                        give(signal, count // 20, size)
            for backend in BACKENDS:
                running.restart(backend)
            # Nothing is stuck behind it.
            for signal in Signal:
                give(signal, 1, 0)
    for signal in Signal:
        _are_there(running, client, signal, runs[signal], sent[signal])
    all_there(running, client, sources)


def _are_there(
    stack: LocalStack,
    client: Client,
    signal: Signal,
    run: str,
    expected: Mapping[tuple[str, int], int],
) -> None:
    """Wait until just these numbers of a run are there."""

    def look() -> Counter[tuple[str, int]] | str:
        try:
            return arrived(client, stack.reader(VICTIM), signal, run)
        except StackproofError as error:
            return str(error)

    there = until(look, lambda there: there == expected, within_s=PATIENCE_S, every_s=0.5)
    assert there == expected, _difference(signal, there, expected)


def _difference(
    signal: Signal, there: Counter[tuple[str, int]] | str, expected: Mapping[tuple[str, int], int]
) -> str:
    if isinstance(there, str):
        return f"{signal}: {there}"
    lost = sorted(number for _, number in expected.keys() - there.keys())
    twice = sorted(number for (_, number), times in there.items() if times > 1)
    return f"{signal}: {len(lost)} of {len(expected)} are lost, such as {lost[:5]}; twice {twice}"


@pytest.mark.xdist_group("queues")
def test_a_line_that_is_too_long_is_cut(running: LocalStack, client: Client) -> None:
    """By Alloy, or by Loki where it is not sent through one: 256 KiB of it are there."""
    access = running.reader(VICTIM)
    for entry_point in (EntryPoint.ALLOY_GRPC, EntryPoint.GATEWAY):
        run = synthetic.new_run()
        with running.sender(VICTIM, entry_point, client) as opened:
            opened.send(Signal.LOGS, numbered(Signal.LOGS, VICTIM, run, 1, size=1_000_000))

        def look(run: str = run) -> tuple[list[int] | None, str]:
            found = delivery.lines(client, access, f"tenant={VICTIM} xxx", run=run)
            sizes = [len(line) for line in found]
            return sizes or None, f"{sizes}"

        assert poll(look, PATIENCE_S, f"a long line through {entry_point}") == [262_144]


def _with_labels(message: Any) -> Any:
    """Make a point have more labels than Mimir takes (30, the resource's among them)."""
    point = message.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0]
    for number in range(40):
        point.attributes.add(key=f"label_{number}").value.string_value = "x"
    return message


def _with_events(message: Any) -> Any:
    """Make a span larger than a batch, and nothing of it too long to be kept."""
    span = message.resource_spans[0].scope_spans[0].spans[0]
    for _ in range(300):
        event = span.events.add(name="large", time_unix_nano=span.start_time_unix_nano)
        event.attributes.add(key="large").value.string_value = "x" * 2_000
    return message


def _of_no_trace(message: Any) -> Any:
    """Make a span belong to no trace: Tempo refuses whatever comes with it."""
    message.resource_spans[0].scope_spans[0].spans[0].trace_id = b""
    return message


def _of_no_id(message: Any) -> Any:
    """Give a span no id of its own: Tempo from 2.10 on refuses whatever comes with it."""
    message.resource_spans[0].scope_spans[0].spans[0].span_id = b""
    return message


def _coarse(message: Any) -> Any:
    """Make a point one of a histogram that is coarser than Mimir takes (a scale below -4)."""
    metric = message.resource_metrics[0].scope_metrics[0].metrics[0]
    point, histogram = metric.gauge.data_points[0], metric.exponential_histogram
    histogram.aggregation_temporality = 2
    made = histogram.data_points.add(time_unix_nano=point.time_unix_nano, count=1, scale=-10)
    made.attributes.extend(point.attributes)
    made.positive.bucket_counts.append(1)
    return message


def _unnamed(message: Any) -> Any:
    """Give a metric a name that has nothing of which Mimir makes one."""
    message.resource_metrics[0].scope_metrics[0].metrics[0].name = "é"
    return message


def _record(message: Any) -> Any:
    """Return the one line, span or point of a message."""
    (_, (resource,)) = message.ListFields()[0]
    scope = next(part for name, part in resource.ListFields() if name.name.startswith("scope_"))[0]
    records = next(part for name, part in scope.ListFields() if name.name != "scope")
    return records[0].gauge.data_points[0] if hasattr(records[0], "gauge") else records[0]


def _with_key(key: str, size: int = 1) -> Callable[[Any], Any]:
    """Give a record an attribute of this name, of `size` bytes."""

    def spoil(message: Any) -> Any:
        _record(message).attributes.add(key=key).value.string_value = "x" * size
        return message

    return spoil


def _with_map(message: Any) -> Any:
    """Give a line an attribute with more parts than Loki takes attributes (128)."""
    parts = _record(message).attributes.add(key="map").value.kvlist_value.values
    for number in range(300):
        parts.add(key=f"part-{number}").value.string_value = "x"
    return message


def _with_nan(message: Any) -> Any:
    """Give a line such a map beside a number that JSON has no word for."""
    _record(message).attributes.add(key="nan").value.double_value = float("nan")
    return _with_map(message)


def _resource(message: Any) -> Any:
    """Return the one resource of a message."""
    (_, (part,)) = message.ListFields()[0]
    return part.resource


def _scope(message: Any) -> Any:
    """Return the library of a message."""
    (_, (resource,)) = message.ListFields()[0]
    part = next(part for name, part in resource.ListFields() if name.name.startswith("scope_"))[0]
    return part.scope


def _of_large_scope(message: Any) -> Any:
    """Let a library have a name, a version and attributes that fit no batch."""
    scope = _scope(message)
    scope.name = scope.version = "x" * 200_000
    scope.attributes.add(key="large").value.string_value = "x" * 200_000
    return message


def _with_large_map(place: Callable[[Any], Any], key: str) -> Callable[[Any], Any]:
    """Give something an attribute that is no text, and fits no batch."""

    def spoil(message: Any) -> Any:
        parts = place(message).attributes.add(key=key).value.kvlist_value.values
        parts.add(key="large").value.string_value = "x" * 400_000
        return message

    return spoil


def _with_many(message: Any) -> Any:
    """Give a line, its library and its resource more attributes than Loki's default (128)."""
    for place, count in ((_record, 100), (_scope, 16), (_resource, 60)):
        for number in range(count):
            place(message).attributes.add(key=f"part-{number}").value.string_value = "x"
    parts = _scope(message).attributes[0].value.kvlist_value.values
    for number in range(300):
        parts.add(key=f"part-{number}").value.string_value = "x"
    return message


def _with_large_event_name(message: Any) -> Any:
    """Give a line the name of an event that fits no batch."""
    _record(message).event_name = "x" * 400_000
    return message


def _with_list(message: Any) -> Any:
    """Give a point a list of which a label can be made only when it is cut."""
    item = _record(message).attributes.add(key="list").value.array_value.values.add()
    item.string_value = "x" * 3_000
    return message


def _endless(message: Any) -> Any:
    """Let a span end so late that its time is no signed number: Tempo's search takes it for one."""
    _record(message).end_time_unix_nano = 2**64 - 1
    return message


def _with_exemplar(message: Any) -> Any:
    """Give a point an exemplar that fits no batch."""
    point = _record(message)
    exemplar = point.exemplars.add(time_unix_nano=point.time_unix_nano, as_double=1)
    exemplar.filtered_attributes.add(key="large").value.string_value = "x" * 400_000
    return message


def _large_span(message: Any) -> Any:
    """Give a span a name, a state and a reason that fit no batch."""
    span = _record(message)
    span.name += " " + "x" * 200_000
    span.trace_state = span.status.message = "x" * 200_000
    return message


def _large_metric(message: Any) -> Any:
    """Describe a metric in more than fits a batch."""
    metric = message.resource_metrics[0].scope_metrics[0].metrics[0]
    metric.description = metric.unit = "x" * 400_000
    metric.metadata.add(key="large").value.string_value = "x" * 400_000
    return message


#: Names that have nothing a label can be made of, or are too long for one.
ODD_KEYS = ["", " ", ".", "é", "用户", "k" * 2_000]
ODD = [
    *((signal, _with_key(key)) for key in ODD_KEYS for signal in Signal),
    *((signal, _of_large_scope) for signal in Signal),
    *((signal, _with_large_map(_scope, "large")) for signal in Signal),
    # One that is kept of a resource that is too large.
    *((signal, _with_large_map(_resource, "k8s.pod.name")) for signal in Signal),
    *((Signal.LOGS, one) for one in (_with_map, _with_nan, _with_many, _with_large_event_name)),
    (Signal.TRACES, _large_span),
    (Signal.TRACES, _endless),
    (Signal.METRICS, _with_list),
    (Signal.METRICS, _with_large_map(_record, "large")),
    (Signal.METRICS, _large_metric),
]


@pytest.mark.xdist_group("queues")
def test_what_is_odd_costs_nothing(running: LocalStack, client: Client) -> None:
    """Neither itself nor what comes with it: it is cut, or gets another name."""
    runs, began = [synthetic.new_run() for _ in ODD], time.time_ns()
    for run, (signal, spoil) in zip(runs, ODD, strict=True):
        one, odd, other = (
            numbered(signal, VICTIM, run, number, began + number * 10**6) for number in range(1, 4)
        )
        message: Any = one
        message.MergeFrom(spoil(odd))
        message.MergeFrom(other)
        with running.sender(VICTIM, EntryPoint.ALLOY_GRPC, client) as opened:
            opened.send(signal, message)
    for run, (signal, _) in zip(runs, ODD, strict=True):
        _are_there(running, client, signal, run, {(VICTIM, number): 1 for number in range(1, 4)})


@pytest.mark.xdist_group("queues")
@pytest.mark.parametrize(
    ("signal", "spoil", "kept"),
    [
        (Signal.METRICS, _with_labels, {1, 3, 4}),
        (Signal.TRACES, _with_events, {1, 4}),
        (Signal.TRACES, _of_no_trace, {1, 3, 4}),
        (Signal.TRACES, _of_no_id, {1, 3, 4}),
        (Signal.METRICS, _coarse, {1, 3, 4}),
        (Signal.METRICS, _unnamed, {1, 3, 4}),
        (Signal.METRICS, _with_exemplar, {1, 4}),
    ],
)
def test_what_alloy_acknowledges_and_drops(
    signal: Signal, spoil: Callable[[Any], Any], kept: set[int], running: LocalStack, client: Client
) -> None:
    """Known losses: a point with too many labels or no name, a span of no trace or too large.

    Three in one request, of which the second is at fault, and one that comes later.
    """
    run, began = synthetic.new_run(), time.time_ns()
    ones = [numbered(signal, VICTIM, run, number, began + number * 10**6) for number in range(1, 5)]
    message: Any = ones[0]
    message.MergeFrom(spoil(ones[1]))
    message.MergeFrom(ones[2])
    with running.sender(VICTIM, EntryPoint.ALLOY_GRPC, client) as opened:
        opened.send(signal, message)
        opened.send(signal, ones[3])
    _are_there(running, client, signal, run, {(VICTIM, number): 1 for number in kept})


@pytest.mark.xdist_group("queues")
def test_a_span_that_ends_before_it_starts_hides_no_other(
    running: LocalStack, client: Client
) -> None:
    """Its duration is no signed number: Tempo would skip what is stored beside it."""
    run, began = synthetic.new_run(), time.time_ns()
    one, odd = (numbered(Signal.TRACES, VICTIM, run, n, began + n * 10**6) for n in (1, 2))
    span = _record(odd)
    span.end_time_unix_nano = span.start_time_unix_nano - 10**9
    message: Any = one
    message.MergeFrom(odd)
    with running.sender(VICTIM, EntryPoint.ALLOY_GRPC, client) as opened:
        opened.send(Signal.TRACES, message)
    _are_there(running, client, Signal.TRACES, run, {(VICTIM, 1): 1, (VICTIM, 2): 1})
    # Each takes a millisecond.
    query = f'{{ span.stackproof.run = "{run}" && duration > 500us }}'
    asked = {"q": query, "start": str(began // 10**9 - 60), "end": str(began // 10**9 + 60)}
    answer = client.data(running.reader(VICTIM), Backend.TEMPO, "/api/search", asked)
    assert [trace["rootTraceName"] for trace in answer["traces"]] == [f"number=1 tenant={VICTIM}"]


@pytest.mark.xdist_group("queues")
def test_a_line_that_claims_an_error_breaks_no_sum(running: LocalStack, client: Client) -> None:
    """LogQL has a label for its own errors, and sums nothing that has it."""
    run = synthetic.new_run()
    with running.sender(VICTIM, EntryPoint.ALLOY_GRPC, client) as opened:
        opened.send(Signal.LOGS, _with_key("__error__")(numbered(Signal.LOGS, VICTIM, run, 1)))
    _are_there(running, client, Signal.LOGS, run, {(VICTIM, 1): 1})
    query = f'sum(count_over_time({{service_instance_id="counted-{run}"}}[5m]))'
    answer = client.data(
        running.reader(VICTIM), Backend.LOKI, "/loki/api/v1/query", {"query": query}
    )
    assert [sample["value"][1] for sample in answer["data"]["result"]] == ["1"]


@pytest.mark.xdist_group("queues")
def test_deltas_become_sums(running: LocalStack, client: Client) -> None:
    """Mimir refuses delta temporality: Alloy adds it up."""
    run = synthetic.new_run()
    with running.sender(VICTIM, EntryPoint.ALLOY_GRPC, client) as opened:
        for value in (2, 3):
            opened.send(Signal.METRICS, _delta(run, value))
            time.sleep(0.01)

    def look() -> tuple[float | None, str]:
        value = delivery.latest(client, running.reader(VICTIM), "stackproof_delta_total", run)
        return value if value == 5 else None, f"{value}"

    poll(look, PATIENCE_S, "the sum of two deltas")


def _delta(run: str, value: int) -> Any:
    message: Any = numbered(Signal.METRICS, VICTIM, run, 1)
    metric = message.resource_metrics[0].scope_metrics[0].metrics[0]
    point = metric.gauge.data_points[0]
    metric.name = "stackproof.delta"
    total = Sum(is_monotonic=True, aggregation_temporality=DELTA)
    now = time.time_ns()
    total.data_points.add(
        as_int=value,
        start_time_unix_nano=now - 10**6,
        time_unix_nano=now,
        attributes=point.attributes,
    )
    metric.sum.CopyFrom(total)
    return message


def _go_on(stack: LocalStack, client: Client, sources: Mapping[str, Source], but: Signal) -> None:
    """What is acknowledged from now on must be visible soon, of all signals but one."""
    since = time.monotonic()
    waiting = {(source, each) for source in sources for each in Signal if each is not but}
    while waiting := {
        (tenant, signal)
        for tenant, signal in waiting
        if not _visible(stack, client, sources[tenant], signal, since)
    }:
        assert time.monotonic() < since + SOON_S, waiting
        time.sleep(0.2)


def _visible(
    stack: LocalStack, client: Client, source: Source, signal: Signal, since: float
) -> bool:
    there = arrived(client, stack.reader(source.tenant), signal, source.run)
    # A copy: the source goes on meanwhile.
    taken = source.taken[signal].copy()
    return any(taken.get(number, 0) > since for _, number in there)


@contextmanager
def _stopped(stack: LocalStack, client: Client, component: str) -> Iterator[None]:
    """Stop a backend for ten seconds at least: it is there, and answers nothing."""
    stopped, process = time.monotonic(), stack.process(component)
    assert process.pid
    try:
        process.signal(signals.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)  # until the last of its threads has stopped
        url = f"{stack.backend_url(Backend(component))}/ready"
        with pytest.raises(ReadTimeoutError):
            client.pool.request("GET", url, timeout=1, retries=False)
        yield
        time.sleep(max(0, stopped + 10 - time.monotonic()))
    finally:
        process.signal(signals.SIGCONT)


@pytest.mark.xdist_group("junk")
@pytest.mark.parametrize("component", BACKENDS)
def test_what_is_slow_loses_nothing_and_harms_no_other(
    component: str, running: LocalStack, client: Client
) -> None:
    with sending(running, client, TENANTS) as sources:
        time.sleep(1)
        with _stopped(running, client, component):
            _go_on(running, client, sources, SIGNALS[component])
        continued = time.monotonic()
        time.sleep(1)
    all_there(running, client, sources)
    # It was acknowledged all the while: Alloy keeps it.
    for source in sources.values():
        times = source.taken[SIGNALS[component]].values()
        assert any(continued - 3 < taken < continued for taken in times), source.refused


def test_tempo_is_told_to_end(running: LocalStack, client: Client) -> None:
    """A known loss: it takes traces while it ends, and writes them no more."""
    with sending(running, client, TENANTS, pause_s=0.03) as sources:
        time.sleep(2)
        # Once queried, it does not end by itself (grafana/tempo#5733).
        for tenant, source in sources.items():
            arrived(client, running.reader(tenant), Signal.TRACES, source.run)
        told = time.monotonic()
        running.process("tempo").signal(signals.SIGTERM)
        time.sleep(5)
        _kill(running, "tempo")
        running.restart("tempo")
        time.sleep(1)

    def may_lack(signal: Signal, taken: float) -> bool:
        return signal is Signal.TRACES and told - TEMPO_LOSS_S < taken < told + TEMPO_ENDS_S

    all_there(running, client, sources, may_lack)


@pytest.mark.xdist_group("junk")
@pytest.mark.parametrize(
    "spoil",
    [lambda message: b"\xff\xfe" + message, lambda message: message[:-7]],
    ids=["garbage", "truncated"],
)
def test_junk_is_refused_and_harms_nobody(
    spoil: Callable[[bytes], bytes], running: LocalStack, client: Client
) -> None:
    access = running.reader(VICTIM)
    urls = {
        running.otlp_http(VICTIM): {},
        f"{running.gateway_url}/otlp": senders.basic_auth(access.auth),
    }
    with sending(running, client, TENANTS) as sources:
        for signal in Signal:
            good = numbered(signal, VICTIM, synthetic.new_run(), 1).SerializeToString()
            for url, headers in urls.items():
                for body, expected in ((good, 200), (spoil(good), 400)):
                    answer = client.pool.request(
                        "POST",
                        f"{url}/v1/{signal}",
                        body=body,
                        headers={"Content-Type": "application/x-protobuf", **headers},
                        retries=False,
                    )
                    # Loki says 204 where the others say 200.
                    assert answer.status in {expected, expected + 4 * (expected == 200)}, (
                        answer.data
                    )
        time.sleep(1)
    all_there(running, client, sources)


@pytest.mark.xdist_group("junk")
@pytest.mark.parametrize(
    ("entry_point", "reasons"),
    [
        # Alloy cuts it off. Backends unpack a tenth of it.
        (EntryPoint.ALLOY_GRPC, {}),
        (EntryPoint.ALLOY_HTTP, {}),
        (EntryPoint.GATEWAY, dict.fromkeys(Signal, "too large|larger than")),
    ],
)
def test_an_attribute_of_ten_mebibytes_harms_nothing_else(
    entry_point: EntryPoint, reasons: Mapping[Signal, str], running: LocalStack, client: Client
) -> None:
    run = synthetic.new_run()
    with sending(running, client, TENANTS) as sources:
        time.sleep(0.5)
        for signal in Signal:
            message = _with_key("big", 10 * 2**20)(numbered(signal, VICTIM, run, 1))
            with running.sender(VICTIM, entry_point, client) as opened:
                if signal in reasons:
                    with pytest.raises(ExportError, match=reasons[signal]):
                        opened.send(signal, message)
                else:
                    opened.send(signal, message)
        time.sleep(1)
    all_there(running, client, sources)
    for signal in Signal:
        expected = {} if signal in reasons else {(VICTIM, 1): 1}
        _are_there(running, client, signal, run, expected)


@pytest.mark.xdist_group("junk")
@pytest.mark.parametrize("entry_point", [EntryPoint.ALLOY_GRPC, EntryPoint.ALLOY_HTTP])
def test_alloy_refuses_more_than_sixteen_mebibytes(
    entry_point: EntryPoint, running: LocalStack, client: Client
) -> None:
    """What is not acknowledged is not lost: the application's exporter knows."""
    run = synthetic.new_run()
    for signal in Signal:
        message = _with_key("big", 16 * 2**20)(numbered(signal, VICTIM, run, 1))
        with (
            running.sender(VICTIM, entry_point, client) as opened,
            pytest.raises(ExportError, match=r"larger than max|too large"),
        ):
            opened.send(signal, message)


HOUR = 3600
#: How far off a sender's clock is (seconds), and what a backend says to it; None: it is taken.
CLOCKS: Sequence[tuple[Signal, int, str | None]] = [
    (Signal.TRACES, -HOUR, None),
    (Signal.TRACES, HOUR, None),
    (Signal.METRICS, 300 - HOUR, None),
    (Signal.METRICS, -HOUR - 60, "more recent timestamp"),
    (Signal.METRICS, HOUR, "too far in the future"),
    (Signal.LOGS, 300 - HOUR, None),
    (Signal.LOGS, -HOUR - 60, "too far behind"),
    (Signal.LOGS, HOUR, "too new"),
]


@pytest.mark.xdist_group("junk")
@pytest.mark.parametrize(("signal", "offset_s", "reason"), CLOCKS)
def test_a_clock_that_is_off(
    signal: Signal, offset_s: int, reason: str | None, running: LocalStack, client: Client
) -> None:
    run, now = synthetic.new_run(), time.time_ns()
    with running.sender(VICTIM, EntryPoint.GATEWAY, client) as opened:
        opened.send(signal, numbered(signal, VICTIM, run, 1))
        other = numbered(signal, VICTIM, run, 2, now + offset_s * 10**9)
        if reason is None:
            opened.send(signal, other)
        else:
            with pytest.raises(ExportError, match=reason):
                opened.send(signal, other)
    expected = {1, 2} if reason is None else {1}
    there = until(
        lambda: _numbers(running, client, signal, run),
        lambda there: there == expected,
        within_s=PATIENCE_S,
    )
    assert there == expected


def _numbers(stack: LocalStack, client: Client, signal: Signal, run: str) -> set[int]:
    access = stack.reader(VICTIM)
    if signal is not Signal.TRACES:
        return {n for _, n in arrived(client, access, signal, run, window_s=2 * HOUR)}
    # Tempo's search finds a span of an hour ago only when its block is complete; its id, at once.
    headers = senders.basic_auth(access.auth)
    url = f"{access.urls[Backend.TEMPO]}/api/traces"
    ids = {n: delivery.trace_id(run, VICTIM, n).hex() for n in (1, 2)}
    answers = {n: client.pool.request("GET", f"{url}/{i}", headers=headers) for n, i in ids.items()}
    return {n for n, answer in answers.items() if f"number={n} ".encode() in answer.data}


# --- a tenant that sends more than it may ---

#: Bursts are the smallest that the chart takes.
LIMITS: Mapping[str, Mapping[str, float]] = {
    "metrics": {"activeSeries": 50, "samplesPerSecond": 20, "samplesBurst": 40_000},
    "logs": {"megabytesPerSecond": 0.01, "megabytesBurst": 8, "streams": 5},
    "traces": {"bytesPerSecond": 20_000, "burstBytes": 400_000, "liveTraces": 20},
}


@pytest.fixture(scope="module")
def limited() -> Iterator[LocalStack]:
    """A stack where one tenant may send little."""
    deployment = Deployment.load(Checkout.find())
    tenants = tuple(
        replace(each, limits=LIMITS) if each.name == VICTIM else each
        for each in deployment.registry
    )
    registry = replace(deployment.registry, tenants=tenants)
    with LocalStack(replace(deployment, registry=registry)) as stack:
        yield stack


def _flood(signal: Signal, count: int, size: int = 0) -> Any:
    """Return `count` traces, or points and lines of as many series and streams, in one request."""
    runs = [synthetic.new_run() for _ in range(count)]
    return _together(signal, runs, range(1, count + 1), size)


def _together(
    signal: Signal, runs: Iterable[str], numbers: Iterable[int], size: int, since_ns: int = 0
) -> Any:
    """Return one request with these numbers, each of its run and of at least `size` bytes.

    With `since_ns` each has a millisecond of its own since then: a series has one sample in each.
    """
    message, *others = (
        numbered(signal, VICTIM, run, number, since_ns and since_ns + number * 10**6, size)
        for run, number in zip(runs, numbers, strict=False)
    )
    for other in others:
        message.MergeFrom(other)
    return message


#: So many requests, of what is taken at once.
_MORE_THAN_A_BURST = 20
_ONE_STREAM = synthetic.new_run()


def _send_until_refused(
    opened: senders.Sender, signal: Signal, flooding: Callable[[], Any]
) -> None:
    for _ in range(_MORE_THAN_A_BURST):
        opened.send(signal, flooding())


def _refusal(opened: senders.Sender, signal: Signal, message: Any) -> str:
    """Return why this is refused, or nothing."""
    try:
        opened.send(signal, message)
    except ExportError as refused:
        return str(refused)
    return ""


def _megabyte() -> Any:
    """Return almost what Loki unpacks, of always the same stream."""
    return _together(Signal.LOGS, repeat(_ONE_STREAM), range(1, 10), 100_000)


def _buckets(count: int) -> Any:
    """Return one point that is as many samples: a histogram with `count` buckets."""
    message: Any = numbered(Signal.METRICS, VICTIM, synthetic.new_run(), 1)
    metric = message.resource_metrics[0].scope_metrics[0].metrics[0]
    time_ns = metric.gauge.data_points[0].time_unix_nano
    metric.histogram.data_points.add(
        time_unix_nano=time_ns, bucket_counts=[0] * (count + 1), explicit_bounds=range(count)
    )
    metric.histogram.aggregation_temporality = CUMULATIVE
    return message


@pytest.mark.xdist_group("floods")
@pytest.mark.parametrize(
    ("signal", "flooding", "times", "reason"),
    [
        (Signal.METRICS, partial(_flood, Signal.METRICS, 60), 1, "per-user series limit of 50"),
        (Signal.METRICS, partial(_buckets, 40_000), 5, "burst size limit, set to 40000"),
        (Signal.LOGS, _megabyte, 5, "ingestion rate limit exceed"),
        (Signal.LOGS, partial(_flood, Signal.LOGS, 20), 1, "maximum active stream limit exceeded"),
        (Signal.TRACES, partial(_flood, Signal.TRACES, 3000), 10, "RATE_LIMITED"),
    ],
)
def test_a_flood_is_refused_and_the_others_lose_nothing(
    signal: Signal,
    flooding: Callable[[], Any],
    times: int,
    reason: str,
    limited: LocalStack,
    client: Client,
) -> None:
    others = [tenant for tenant in TENANTS if tenant != VICTIM]
    with (
        sending(limited, client, others) as sources,
        limited.sender(VICTIM, EntryPoint.GATEWAY, client) as opened,
    ):
        for _ in range(times):
            with pytest.raises(ExportError, match=reason):
                _send_until_refused(opened, signal, flooding)
        time.sleep(1)
    all_there(limited, client, sources)


@pytest.mark.xdist_group("floods")
def test_tempo_takes_more_live_traces_than_it_keeps(limited: LocalStack, client: Client) -> None:
    """A known loss: traces over `liveTraces` are acknowledged, and dropped."""
    metrics = f"{limited.backend_url(Backend.TEMPO)}/metrics"
    live = re.compile(rf'^tempo_ingester_live_traces{{tenant="{VICTIM}"}} (\S+)$', re.MULTILINE)
    until(
        lambda: live.findall(client.pool.request("GET", metrics).data.decode()),
        lambda living: not any(map(float, living)),
        within_s=PATIENCE_S,
    )
    run, count = synthetic.new_run(), 60
    message = _together(Signal.TRACES, repeat(run), range(1, count + 1), 0)
    with limited.sender(VICTIM, EntryPoint.GATEWAY, client) as opened:
        until(
            lambda: _refusal(opened, Signal.TRACES, message),
            lambda refusal: not refusal,  # there are bytes to spend
            within_s=PATIENCE_S,
        )
    kept = int(LIMITS["traces"]["liveTraces"])
    there = until(
        lambda: len(arrived(client, limited.reader(VICTIM), Signal.TRACES, run)),
        lambda there: there >= kept,
        within_s=PATIENCE_S,
    )
    assert there == kept


# --- a full disk ---

#: Loki looks at its disk every 10 s.
REFUSED_WITHIN_S = 15.0
#: What was acknowledged so long before may not have been sent on yet.
BATCH_S = 0.5


def _told(stack: LocalStack, client: Client, signal: Signal, patience_s: float) -> int:
    """Return the status of the first refusal at the gateway, or the last one if there is none."""
    headers = senders.basic_auth(stack.reader(VICTIM).auth)
    headers["Content-Type"] = "application/x-protobuf"
    url = f"{stack.gateway_url}/otlp/v1/{signal}"
    ends = time.monotonic() + patience_s
    # At first more than a page of a write-ahead log (32 KiB): what does not fit is cut off.
    for count in chain([200], repeat(1)):
        body = _flood(signal, count).SerializeToString()
        answer = client.pool.request("POST", url, body=body, headers=headers, retries=False)
        if answer.status >= 300 or time.monotonic() > ends:
            break
        time.sleep(0.5)
    return answer.status


def _write_out(stack: LocalStack, client: Client, component: str, disk: Path) -> None:
    """Let a backend write what it has in memory to where no damaged log matters."""
    if component == "mimir":
        # Its answer is the same where it cannot: a block takes 512 MiB until it is written.
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        url = stack.backend_url(Backend.MIMIR).removesuffix("/prometheus")
        answer = client.pool.request("POST", f"{url}/ingester/flush?wait=true", timeout=30)
        assert answer.status == 204, answer.data
    else:
        # Loki has noticed that its log is not whole, and writes all when it is told to end.
        stack.process(component).signal(signals.SIGTERM)
        ended = until(stack.process(component).ended, within_s=PATIENCE_S)
        assert ended is not None, f"{component} does not end"


@pytest.mark.xdist_group("disks")
@pytest.mark.parametrize(
    ("component", "status", "written_out"),
    [("mimir", 503, True), ("mimir", 503, False), ("loki", 503, True), ("tempo", 200, False)],
)
def test_a_full_disk(
    component: str, status: int, written_out: bool, running: LocalStack, client: Client
) -> None:
    """Mimir and Loki refuse, and Alloy keeps. What they took meanwhile is lost if they are killed.

    A known loss: Tempo takes all and keeps nothing, until it is started again.
    """
    signal = SIGNALS[component]
    with small_disk(running, component) as disk:
        with sending(running, client, TENANTS) as sources:
            time.sleep(2)
            with full(disk) as filled:
                within_s = 2 if status < 300 else REFUSED_WITHIN_S
                told = _told(running, client, signal, within_s)
                assert told == status, running.process(component).tail()
                _go_on(running, client, sources, signal)
            time.sleep(1)
        early = TEMPO_LOSS_S if component == "tempo" else BATCH_S

        def may_lack(what: Signal, taken: float) -> bool:
            return what is signal and taken > filled - early

        backend = running.process(component)
        assert backend.ended() is None, f"{backend.ended()}:\n{backend.tail()}"
        if component == "tempo":
            all_there(running, client, sources, may_lack)
        else:
            all_there(running, client, sources)
        if written_out:
            _write_out(running, client, component, disk)
        _kill(running, component)
        running.restart(component)
        if written_out:
            all_there(running, client, sources)
        else:
            all_there(running, client, sources, may_lack)
        with sending(running, client, TENANTS) as sources:
            time.sleep(1)
        all_there(running, client, sources)


@pytest.mark.xdist_group("disks")
def test_mimir_is_started_on_a_full_disk(running: LocalStack, client: Client) -> None:
    """A known loss: it repairs its log when it starts, finds no room for that, and has no log."""
    with small_disk(running, "mimir") as disk:
        with sending(running, client, TENANTS) as sources:
            time.sleep(2)
            with full(disk):
                assert _told(running, client, Signal.METRICS, REFUSED_WITHIN_S) == 503
                killed = _kill(running, "mimir")
                with pytest.raises(StackproofError, match="exited with 1"):
                    running.restart("mimir")
            running.restart("mimir")
            time.sleep(1)

        def may_lack(signal: Signal, taken: float) -> bool:
            return signal is Signal.METRICS and taken < killed

        all_there(running, client, sources, may_lack)
