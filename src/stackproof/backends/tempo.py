"""The read APIs of Tempo."""

from __future__ import annotations

from stackproof.model import Backend

from .base import Mark, ReadApi, rows

_SPANS = '{ span.stackproof.run = "$run" && span.stackproof.token != "" }'
_WINDOW = (("start", "$start_s"), ("end", "$end_s"))
_ALL = (("limit", "5000"), ("spss", "1"))
_JSON = {"Accept": "application/json"}
#: TraceQL metrics, which the generator answers from the blocks that it keeps for a day.
_RATE = '{ span.stackproof.run = "$run" } | rate() by (span.stackproof.token)'
_api = rows(Backend.TEMPO, "/api/")

TEMPO: tuple[ReadApi, ...] = (
    _api("trace", "traces/$trace_id", "span attribute", headers=_JSON, pairwise=True),
    _api(
        "trace-protobuf",
        "traces/$trace_id",
        "span attribute",
        headers={"Accept": "application/protobuf"},
        pairwise=True,
    ),
    _api("trace-v2", "v2/traces/$trace_id", "span attribute", headers=_JSON, pairwise=True),
    _api("search-traceql", "search", "span attribute", ("q", _SPANS), *_WINDOW, *_ALL),
    # The answer names traces only: the trace id, as unguessable as a token, is what shows.
    _api(
        "search-tags",
        "search",
        "trace id",
        ("tags", "stackproof.run=$run"),
        *_WINDOW,
        *_ALL,
        mark=Mark.TRACE_ID,
    ),
    _api("tags", "search/tags", "attribute name", *_WINDOW),
    _api("tags-v2", "v2/search/tags", "attribute name", *_WINDOW),
    _api("tag-values", "search/tag/stackproof.token/values", "attribute value", *_WINDOW),
    _api(
        "tag-values-v2", "v2/search/tag/span.stackproof.token/values", "attribute value", *_WINDOW
    ),
    # What was not yet made of spans is lost by a restart.
    _api("metrics-query", "metrics/query", "label value", ("q", _RATE), *_WINDOW, volatile=True),
    _api(
        "metrics-query-range",
        "metrics/query_range",
        "label value",
        ("q", _RATE),
        *_WINDOW,
        ("step", "15s"),
        volatile=True,
    ),
    _api("echo", "echo", "", excluded="answers `echo`, no data"),
    _api("buildinfo", "status/buildinfo", "", excluded="tells the version, no data"),
)
