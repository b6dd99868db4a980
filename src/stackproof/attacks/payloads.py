"""Telemetry in the wire formats of Prometheus remote write and of Loki's push API."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping

import cramjam


def varint(number: int) -> bytes:
    """Encode a protobuf varint."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _text(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def remote_write(series: Iterable[Mapping[str, str]], time_ns: int, samples: int = 1) -> bytes:
    """Return a snappy-compressed prometheus.WriteRequest: samples of 1, a millisecond apart.

    WriteRequest.timeseries = 1; TimeSeries.{labels = 1, samples = 2}; Label.{name = 1, value = 2};
    Sample.{value = 1 (double), timestamp = 2 (milliseconds)} (prompb/remote.proto).
    """
    one = b"\x09" + struct.pack("<d", 1.0) + b"\x10"
    last = time_ns // 10**6
    points = b"".join(_text(2, one + varint(last - back)) for back in reversed(range(samples)))
    request = b"".join(_text(1, _labels(labels) + points) for labels in series)
    return bytes(cramjam.snappy.compress_raw(request))


def _labels(labels: Mapping[str, str]) -> bytes:
    # Sorted by name, as the format demands.
    return b"".join(
        _text(1, _text(1, name.encode()) + _text(2, value.encode()))
        for name, value in sorted(labels.items())
    )


def loki_push(
    stream: Mapping[str, str], lines: Iterable[str], time_ns: int, metadata: Mapping[str, str]
) -> bytes:
    """Return a push of lines to one stream, each with this structured metadata."""
    values = [[str(time_ns + number), line, dict(metadata)] for number, line in enumerate(lines)]
    return json.dumps({"streams": [{"stream": dict(stream), "values": values}]}).encode()
