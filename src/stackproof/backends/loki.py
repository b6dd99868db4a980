"""The read APIs of Loki."""

from __future__ import annotations

from stackproof.model import Backend

from .base import ReadApi, rows

# Every line of the run's application; the run's id is structured metadata, the service a label.
_SELECTED = '{service_name="open-webui"} | stackproof_run="$run"'
_LINES = ("query", _SELECTED)
_STREAMS = '{service_instance_id=~"open-webui-sp.+"}'
_SERVICE = ("query", '{service_name="open-webui"}')
_WINDOW = (("start", "$start_ns"), ("end", "$end_ns"))
_ALL = ("limit", "5000")
_VOLUME = (("query", _STREAMS), ("targetLabels", "service_instance_id"), _ALL)
_api = rows(Backend.LOKI, "/loki/api/v1/")

LOKI: tuple[ReadApi, ...] = (
    _api(
        "query",
        "query",
        "metadata value",
        ("query", f"sum by (stackproof_token) (count_over_time({_SELECTED} [1h]))"),
        ("time", "$end_ns"),
    ),
    _api("query-range", "query_range", "line", _LINES, *_WINDOW, _ALL),
    _api("query-range-post", "query_range", "line", _LINES, *_WINDOW, _ALL, method="POST"),
    _api("labels", "labels", "label name", *_WINDOW),
    _api("label", "label", "label name", *_WINDOW),
    _api("label-values", "label/service_instance_id/values", "label value", *_WINDOW),
    _api("series", "series", "label value", ("match[]", _STREAMS), *_WINDOW),
    _api("volume", "index/volume", "label value", *_VOLUME, *_WINDOW),
    _api(
        "volume-range",
        "index/volume_range",
        "label value",
        *_VOLUME,
        # Loki 3.7.8 does not count what lies in the last second of a step: one a day is rare.
        ("step", "86400"),
        *_WINDOW,
    ),
    _api("detected-fields", "detected_fields", "field name", _LINES, _ALL, *_WINDOW),
    _api(
        "detected-field-values",
        "detected_field/stackproof_token/values",
        "field value",
        _LINES,
        _ALL,
        *_WINDOW,
    ),
    _api("detected-labels", "detected_labels", "label name", _SERVICE, *_WINDOW),
    _api(
        "tail", "tail", "line", _LINES, ("start", "$start_ns"), _ALL, federated=False, stream=True
    ),
    _api(
        "stats",
        "index/stats",
        "",
        ("query", _STREAMS),
        *_WINDOW,
        excluded="answers numbers only, and zero until chunks are flushed",
    ),
    _api(
        "patterns",
        "patterns",
        "",
        _SERVICE,
        *_WINDOW,
        excluded="not passed by the gateway, and 404 without a pattern ingester",
    ),
    _api("drilldown-limits", "drilldown-limits", "", excluded="tells limits, no data"),
    _api("format-query", "format_query", "", _LINES, excluded="not passed by the gateway"),
    _api("buildinfo", "status/buildinfo", "", excluded="tells the version, no data"),
)
