"""What the load sends: shapes and counts, without sending it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from stackproof.bench import workload
from stackproof.model import Signal
from stackproof.otlp import app_metrics


def _spans(message: Any) -> list[Any]:
    return [s for r in message.resource_spans for c in r.scope_spans for s in c.spans]


def test_a_chat_is_one_trace_of_one_tree() -> None:
    now = time.time_ns()
    message, counts = workload.make("soev", Signal.TRACES, 7, 5.0, 1)
    spans = _spans(message)
    assert counts == {"chats": 7, "spans": len(spans)}
    assert len({span.trace_id for span in spans}) == 7
    assert len({span.span_id for span in spans}) == len(spans)
    for trace in {span.trace_id for span in spans}:
        own = [span for span in spans if span.trace_id == trace]
        (root,) = (span for span in own if not span.parent_span_id)
        assert all(s.parent_span_id == root.span_id for s in own if s is not root)
        assert all(root.start_time_unix_nano <= s.start_time_unix_nano for s in own)
        assert all(s.end_time_unix_nano <= root.end_time_unix_nano for s in own)
        assert now - 7 * 10**9 < root.end_time_unix_nano <= time.time_ns()


def test_lines_and_samples_are_counted() -> None:
    message: Any
    message, counts = workload.make("soev", Signal.LOGS, 4, 5.0, 1)
    lines = [r for s in message.resource_logs for c in s.scope_logs for r in c.log_records]
    assert counts == {"lines": len(lines)}
    assert workload.make("soev", Signal.LOGS, 0, 5.0, 1)[1] == {}


@pytest.mark.parametrize("routes", [1, 20])
def test_a_route_more_is_its_series_more(routes: int) -> None:
    message = app_metrics.busy("soev", minutes=0, routes=routes)
    plain = app_metrics.samples(app_metrics.busy("soev", minutes=0))
    # Requests and their duration (12 samples a histogram) with two statuses, response sizes.
    assert app_metrics.samples(message) == plain + (routes - 1) * (2 + 2 * 12 + 12)
    made = [m for r in message.resource_metrics for s in r.scope_metrics for m in s.metrics]
    (requests,) = (metric for metric in made if metric.name == "http.server.requests")
    told = {
        tuple(sorted((a.key, a.value.string_value) for a in p.attributes))
        for p in requests.sum.data_points
    }
    assert len(told) == 2 * routes


def test_a_batch_sent_again_has_other_ids_and_the_same_size() -> None:
    message, _ = workload.make("soev", Signal.TRACES, 3, 5.0, 1)
    batch = workload.Batch(message)
    seen: set[bytes] = set()
    for turn in range(1, 4):
        again = type(message)()
        again.ParseFromString(batch.SerializeToString())
        assert again.ByteSize() == message.ByteSize() == batch.ByteSize()
        spans = _spans(again)
        roots = {span.span_id for span in spans if not span.parent_span_id}
        assert {s.parent_span_id for s in spans if s.parent_span_id} == roots
        seen |= {span.trace_id for span in spans}
        assert len(seen) == 3 * turn
    lines, _ = workload.make("soev", Signal.LOGS, 3, 5.0, 1)
    one, other = (
        workload.Batch(lines).SerializeToString(),
        workload.Batch(lines).SerializeToString(),
    )
    assert one != other
    assert len(one) == len(other)
