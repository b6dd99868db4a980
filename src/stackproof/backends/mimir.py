"""The read APIs of Mimir (Prometheus' HTTP API)."""

from __future__ import annotations

import cramjam

from stackproof.model import Backend
from stackproof.otlp.protobuf import field

from .base import Question, ReadApi, rows

_RUN = '{stackproof_run="$run"}'
_QUERY, _MATCH = ("query", _RUN), ("match[]", _RUN)
_WINDOW = (("start", "$start_s"), ("end", "$end_s"))


def remote_read_request(question: Question) -> bytes:
    """Return a snappy-compressed prometheus.ReadRequest (prompb/remote.proto) for the whole run.

    ReadRequest.queries = 1; Query.{start_timestamp_ms = 1, end_timestamp_ms = 2, matchers = 3};
    LabelMatcher.{type = 1, name = 2, value = 3}, type 0 being EQ.
    """
    matcher = field(2, b"stackproof_run") + field(3, question.run.encode("ascii"))
    query = (
        field(1, question.start_ns // 10**6)
        + field(2, question.end_ns // 10**6)
        + field(3, matcher)
    )
    return bytes(cramjam.snappy.compress_raw(field(1, query)))


def decode_snappy(body: bytes) -> bytes:
    """Return the uncompressed bytes of a snappy block."""
    try:
        return bytes(cramjam.snappy.decompress_raw(body))
    except cramjam.DecompressionError as error:
        raise ValueError(f"the body is no snappy block: {error}") from error


_api = rows(Backend.MIMIR, "/api/v1/")

MIMIR: tuple[ReadApi, ...] = (
    _api("query", "query", "label value", _QUERY, ("time", "$end_s")),
    _api("query-post", "query", "label value", _QUERY, ("time", "$end_s"), method="POST"),
    _api("query-range", "query_range", "label value", _QUERY, *_WINDOW, ("step", "5")),
    _api("series", "series", "label value", _MATCH, *_WINDOW),
    _api("labels", "labels", "label name", _MATCH, *_WINDOW),
    _api("label-values", "label/stackproof_token/values", "label value", _MATCH, *_WINDOW),
    _api("metric-names", "label/__name__/values", "metric name", _MATCH, *_WINDOW),
    _api("metadata", "metadata", "metric name", volatile=True),
    _api("exemplars", "query_exemplars", "label value", _QUERY, *_WINDOW),
    _api(
        "remote-read",
        "read",
        "label value",
        method="POST",
        payload=remote_read_request,
        headers={
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Read-Version": "0.1.0",
        },
        decode=decode_snappy,
    ),
    _api("format-query", "format_query", "", _QUERY, excluded="not passed by the gateway"),
    _api("buildinfo", "status/buildinfo", "", excluded="tells the version, no data"),
)
