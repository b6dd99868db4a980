"""The read APIs of Loki."""

from __future__ import annotations

from stackproof.model import Backend

from .base import ReadApi

# Every line of the run's application; the run's id is structured metadata, the service a label.
_LINES = '{service_name="open-webui"} | stackproof_run="$run"'
_STREAMS = '{service_instance_id=~"open-webui-sp.+"}'
_SERVICE = '{service_name="open-webui"}'
_WINDOW = (("start", "$start_ns"), ("end", "$end_ns"))


def _api(name: str, path: str, shows: str, *params: tuple[str, str], **more: object) -> ReadApi:
    return ReadApi(
        id=f"loki.{name}",
        backend=Backend.LOKI,
        path=f"/loki/api/v1/{path}",
        params=params,
        shows=shows,
        **more,  # type: ignore[arg-type]
    )


LOKI: tuple[ReadApi, ...] = (
    _api(
        "query",
        "query",
        "metadata value",
        ("query", f"sum by (stackproof_token) (count_over_time({_LINES} [1h]))"),
        ("time", "$end_ns"),
    ),
    _api("query-range", "query_range", "line", ("query", _LINES), *_WINDOW, ("limit", "5000")),
    _api(
        "query-range-post",
        "query_range",
        "line",
        ("query", _LINES),
        *_WINDOW,
        ("limit", "5000"),
        method="POST",
    ),
    _api("labels", "labels", "label name", *_WINDOW),
    _api("label", "label", "label name", *_WINDOW),
    _api("label-values", "label/service_instance_id/values", "label value", *_WINDOW),
    _api("series", "series", "label value", ("match[]", _STREAMS), *_WINDOW),
    _api(
        "volume",
        "index/volume",
        "label value",
        ("query", _STREAMS),
        ("targetLabels", "service_instance_id"),
        ("limit", "5000"),
        *_WINDOW,
    ),
    _api(
        "volume-range",
        "index/volume_range",
        "label value",
        ("query", _STREAMS),
        ("targetLabels", "service_instance_id"),
        ("limit", "5000"),
        # Loki 3.7.8 does not count what lies in the last second of a step: one a day is rare.
        ("step", "86400"),
        *_WINDOW,
    ),
    _api(
        "detected-fields",
        "detected_fields",
        "field name",
        ("query", _LINES),
        ("limit", "5000"),
        *_WINDOW,
    ),
    _api(
        "detected-field-values",
        "detected_field/stackproof_token/values",
        "field value",
        ("query", _LINES),
        ("limit", "5000"),
        *_WINDOW,
    ),
    _api("detected-labels", "detected_labels", "label name", ("query", _SERVICE), *_WINDOW),
    _api(
        "tail",
        "tail",
        "line",
        ("query", _LINES),
        ("start", "$start_ns"),
        ("limit", "5000"),
        federated=False,
        stream=True,
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
        ("query", _SERVICE),
        *_WINDOW,
        excluded="not passed by the gateway, and 404 without a pattern ingester",
    ),
    _api("drilldown-limits", "drilldown-limits", "", excluded="tells limits, no data"),
    _api(
        "format-query", "format_query", "", ("query", _LINES), excluded="not passed by the gateway"
    ),
    _api("buildinfo", "status/buildinfo", "", excluded="tells the version, no data"),
)
