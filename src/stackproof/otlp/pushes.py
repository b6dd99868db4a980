"""The other ways into Mimir and Loki: the same telemetry by remote write and by Loki's push."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import cramjam
import urllib3
from google.protobuf.message import Message

from stackproof.model import Signal

from .protobuf import field, pairs
from .senders import Sender, post

_INSTANCE = {"service.name": "job", "service.instance.id": "instance"}
_INDEXED = ("service.name", "service.instance.id", "deployment.environment")
#: An attribute whose name is a token becomes a label of a stream of its own: see `push_label`.
_TOKEN_NAME = re.compile(r"stackproof_sp[0-9a-f]{24}")
_COUNTER, _GAUGE = 1, 2
#: The headers of a Prometheus remote write.
REMOTE_WRITE = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}


class _Push(Sender):
    def __init__(self, url: str, headers: Mapping[str, str], pool: urllib3.PoolManager) -> None:
        self._url = url
        self._headers = headers
        self._pool = pool

    def _post(self, body: bytes, headers: Mapping[str, str], timeout_s: float) -> None:
        sent = {**self._headers, **headers}
        post(self._pool, self._url, body, sent, "push", f"POST {self._url}", timeout_s)

    def close(self) -> None:
        """Nothing: the pool is its owner's."""


class RemoteWriteSender(_Push):
    """Prometheus remote write 1.0, made of an OTLP request's counters and gauges."""

    def send(self, signal: Signal, request: Message, *, timeout_s: float = 10.0) -> None:  # noqa: ARG002
        """See :meth:`Sender.send`."""
        body = b"".join(_write_request(request))
        self._post(bytes(cramjam.snappy.compress_raw(body)), REMOTE_WRITE, timeout_s)


def _write_request(request: Any) -> Iterator[bytes]:
    """Yield the fields of a prometheus.WriteRequest (prompb/remote.proto and types.proto)."""
    for resource in request.resource_metrics:
        of_all = _attributes(resource.resource)
        common = {label: of_all[name] for name, label in _INSTANCE.items()}
        for metric in (each for scope in resource.scope_metrics for each in scope.metrics):
            kind = metric.WhichOneof("data")
            if kind not in {"sum", "gauge"}:
                continue
            name = _name(metric.name) + ("_total" if kind == "sum" else "")
            for point in getattr(metric, kind).data_points:
                labels = {"__name__": name, **common, **_named(point)}
                at_ms = point.time_unix_nano // 10**6
                sample = field(1, _value(point)) + field(2, at_ms)
                exemplars = (
                    field(3, pairs({"trace_id": each.trace_id.hex()}) + _exemplar(each, at_ms))
                    for each in point.exemplars
                )
                yield field(1, pairs(labels) + field(2, sample) + b"".join(exemplars))
            type_ = _COUNTER if kind == "sum" else _GAUGE
            yield field(3, field(1, type_) + field(2, name) + field(4, metric.description))


def _exemplar(exemplar: Any, at_ms: int) -> bytes:
    return field(2, _value(exemplar)) + field(3, at_ms)


def _value(point: Any) -> float:
    return float(getattr(point, point.WhichOneof("value")))


class LokiPushSender(_Push):
    """Loki's push API, made of an OTLP request: attributes of a line are structured metadata."""

    def send(self, signal: Signal, request: Message, *, timeout_s: float = 10.0) -> None:  # noqa: ARG002
        """See :meth:`Sender.send`."""
        body = json.dumps({"streams": list(_streams(request))}).encode()
        self._post(body, {"Content-Type": "application/json"}, timeout_s)


def _streams(request: Any) -> Iterator[dict[str, object]]:
    for resource in request.resource_logs:
        of_all = _attributes(resource.resource)
        labels = {_name(name): of_all[name] for name in _INDEXED}
        for record in (each for scope in resource.scope_logs for each in scope.log_records):
            at, body = str(record.time_unix_nano), record.body.string_value
            metadata = _named(record)
            yield {"stream": labels, "values": [[at, body, metadata]]}
            for name in filter(_TOKEN_NAME.fullmatch, metadata):
                stream = {"service_name": labels["service_name"], name: "1"}
                yield {"stream": stream, "values": [[at, f"label of the isolation proof {body}"]]}


def _attributes(holder: Any) -> dict[str, str]:
    return {
        each.key: str(getattr(each.value, each.value.WhichOneof("value")))
        for each in holder.attributes
    }


def _named(holder: Any) -> dict[str, str]:
    """Return attributes under names that Prometheus and Loki take."""
    return {_name(key): value for key, value in _attributes(holder).items()}


def _name(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", text)
