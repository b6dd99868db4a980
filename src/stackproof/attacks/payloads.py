"""Telemetry in the wire formats of Prometheus remote write and of Loki's push API."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import cramjam

from stackproof.otlp import pushes
from stackproof.otlp.protobuf import field, pairs

#: The header lines of a Prometheus remote write.
REMOTE_WRITE = tuple(f"{name}: {value}" for name, value in pushes.REMOTE_WRITE.items())


def remote_write(series: Iterable[Mapping[str, str]], time_ns: int, samples: int = 1) -> bytes:
    """Return a snappy-compressed prometheus.WriteRequest: samples of 1, a millisecond apart.

    WriteRequest.timeseries = 1; TimeSeries.{labels = 1, samples = 2}; Label.{name = 1, value = 2};
    Sample.{value = 1 (double), timestamp = 2 (milliseconds)} (prompb/remote.proto).
    """
    last = time_ns // 10**6
    points = b"".join(
        field(2, field(1, 1.0) + field(2, last - back)) for back in reversed(range(samples))
    )
    request = b"".join(field(1, pairs(labels) + points) for labels in series)
    return bytes(cramjam.snappy.compress_raw(request))


def loki_push(
    stream: Mapping[str, str], lines: Iterable[str], time_ns: int, metadata: Mapping[str, str]
) -> bytes:
    """Return a push of lines to one stream, each with this structured metadata."""
    values = [[str(time_ns + number), line, dict(metadata)] for number, line in enumerate(lines)]
    return json.dumps({"streams": [{"stream": dict(stream), "values": values}]}).encode()
