"""Send OTLP, and know what was taken: gRPC and HTTP, with the reason for whatever was refused."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import grpc  # type: ignore[import-untyped]
import urllib3
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from stackproof.errors import StackproofError
from stackproof.model import Access, Backend, Signal, Tls
from stackproof.wording import counted

from .http import Received, exchange
from .synthetic import Emission, make, name_of, new_emission


class ExportError(StackproofError):
    """Telemetry that was not taken, wholly or in part, and the reason the receiver gave.

    `retryable`: OTLP asks exporters to send it again (no connection, or the receiver is busy).
    """

    def __init__(self, what: str, where: str | None = None, *, retryable: bool = False) -> None:
        super().__init__(what, where)
        self.retryable = retryable


_ANSWERS: Mapping[Signal, type[Message]] = {
    Signal.TRACES: ExportTraceServiceResponse,
    Signal.METRICS: ExportMetricsServiceResponse,
    Signal.LOGS: ExportLogsServiceResponse,
}
_METHODS = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
#: What the OTLP specification lets a client repeat: gRPC codes and HTTP statuses.
_RETRYABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    *(429, 502, 503, 504),
}
_REJECTED = {
    Signal.TRACES: "rejected_spans",
    Signal.METRICS: "rejected_data_points",
    Signal.LOGS: "rejected_log_records",
}


def _check(signal: Signal, answer: Any, where: str) -> None:
    """Raise where the receiver took less than all. A 200 alone proves nothing."""
    partial = answer.partial_success
    rejected = getattr(partial, _REJECTED[signal])
    if rejected or partial.error_message:
        raise ExportError(
            f"rejected {counted(rejected, 'item')} of the {signal}: "
            f"{partial.error_message or 'no reason given'}",
            where=where,
        )


class Sender(ABC):
    """Hands OTLP export requests to one receiver; returns only when they were taken."""

    @abstractmethod
    def send(self, signal: Signal, request: Message, *, timeout_s: float = 10.0) -> None:
        """Send one request. Raises ExportError where it was not taken as a whole."""

    @abstractmethod
    def close(self) -> None:
        """End the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class GrpcSender(Sender):
    """OTLP over gRPC: in clear text, the application's own way to its Alloy, or with `tls`."""

    def __init__(
        self, target: str, metadata: Sequence[tuple[str, str | bytes]] = (), tls: Tls | None = None
    ) -> None:
        self.target = target
        self._metadata = tuple(metadata)
        # Without this option gRPC sends loopback traffic to the proxy of the environment.
        # And it would wait up to two minutes until it looks again whether a receiver is back.
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 200)]
        if tls is None:
            self._channel = grpc.insecure_channel(target, options=options)
        else:
            files = [
                Path(file).read_bytes() if file else None for file in (tls.ca, tls.key, tls.cert)
            ]
            credentials = grpc.ssl_channel_credentials(*files)
            self._channel = grpc.secure_channel(target, credentials, options=options)
        self._methods = {
            signal: self._channel.unary_unary(
                path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=_ANSWERS[signal].FromString,
            )
            for signal, path in _METHODS.items()
        }

    def send(self, signal: Signal, request: Message, *, timeout_s: float = 10.0) -> None:
        """See :meth:`Sender.send`."""
        where = f"OTLP/gRPC {self.target} {signal}"
        try:
            answer = self._methods[signal](request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            raise ExportError(
                f"export failed with {code.name}: {details}", where, retryable=code in _RETRYABLE
            ) from error
        _check(signal, answer, where)

    def close(self) -> None:
        """See :meth:`Sender.close`."""
        self._channel.close()


def basic_auth(auth: tuple[str, str] | None) -> dict[str, str]:
    """Return the Authorization header for a user and a password, or no header."""
    if auth is None:
        return {}
    return {"Authorization": "Basic " + b64encode(":".join(auth).encode()).decode("ascii")}


def post(
    pool: urllib3.PoolManager,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    what: str,
    where: str,
    timeout_s: float,
) -> Received:
    """Return the answer to what was taken.

    Raises:
        ExportError: It was not; `what` and `where` say what this was.
    """
    try:
        answer = exchange(pool, "POST", url, timeout_s=timeout_s, body=body, headers=headers)
    except urllib3.exceptions.HTTPError as error:
        raise ExportError(f"{what} failed: {error}", where, retryable=True) from error
    if not 200 <= answer.status < 300:
        reason = answer.body[:300].decode("utf-8", "replace").strip()
        raise ExportError(
            f"{what} refused with {answer.line}: {reason or 'empty answer'}",
            where,
            retryable=answer.status in _RETRYABLE,
        )
    return answer


class HttpSender(Sender):
    """OTLP over HTTP: a tenant's Alloy, the gateway's ``/otlp``, or three separate backends.

    `endpoint` is a base URL, to which ``/v1/<signal>`` is appended, or a full URL for each signal,
    which is used as it stands (as open-webui does). A pool may be shared by many senders.
    """

    def __init__(
        self,
        endpoint: str | Mapping[Signal, str],
        *,
        auth: tuple[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        pool: urllib3.PoolManager | None = None,
    ) -> None:
        self._urls = (
            {signal: f"{endpoint.rstrip('/')}/v1/{signal}" for signal in Signal}
            if isinstance(endpoint, str)
            else dict(endpoint)
        )
        self._headers = {
            "Content-Type": "application/x-protobuf",
            **basic_auth(auth),
            **(headers or {}),
        }
        self._own_pool = pool is None
        self._pool = pool or urllib3.PoolManager(maxsize=4, retries=False)

    def send(self, signal: Signal, request: Message, *, timeout_s: float = 10.0) -> None:
        """See :meth:`Sender.send`."""
        url = self._urls[signal]
        where = f"OTLP/HTTP {url}"
        body = request.SerializeToString()
        answer = post(self._pool, url, body, self._headers, "export", where, timeout_s)
        message = _ANSWERS[signal]()
        try:
            message.ParseFromString(answer.body)
        except DecodeError as error:
            raise ExportError(
                f"HTTP {answer.status}, but the answer is no OTLP: {answer.body[:80]!r}",
                where=where,
            ) from error
        _check(signal, message, where)

    def close(self) -> None:
        """See :meth:`Sender.close`."""
        if self._own_pool:
            self._pool.clear()


def emit(
    sender: Sender, tenant: str, run: str, *, signals: Sequence[Signal] = tuple(Signal)
) -> Emission:
    """Make and send the signals of one tenant; return the tokens when all of them were taken.

    Raises ExportError, with the receiver's reason, for the first signal that was not.
    """
    emission = new_emission(tenant, run, signals)
    taken: dict[Signal, float] = {}
    for signal in signals:
        sender.send(signal, make(emission, signal))
        taken[signal] = time.monotonic()
    return replace(emission, taken=taken)


def push_label(access: Access, emission: Emission, pool: urllib3.PoolManager) -> None:
    """Push one line to Loki under a label whose *name* carries the tenant's log token.

    OTLP cannot make such a label (Loki indexes a fixed list of resource attributes), and without
    it the APIs that show label names only (labels, detected_labels) would prove nothing.
    """
    token = emission.tokens[Signal.LOGS]
    url = f"{access.urls[Backend.LOKI]}/loki/api/v1/push"
    stream = {"service_name": "open-webui", name_of(token).replace(".", "_"): "1"}
    line = [str(emission.sent_ns), f"label of the isolation proof {token}"]
    body = json.dumps({"streams": [{"stream": stream, "values": [line]}]}).encode()
    headers = {"Content-Type": "application/json", **basic_auth(access.auth), **access.headers}
    post(pool, url, body, headers, "push", f"POST {url} as {access.name}", 10.0)
