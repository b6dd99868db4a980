"""Send bytes as they are: what a client's library would refuse or put right reaches the server.

An attack is a few `WireRequest`s. HTTP/1.1 is written by hand and HTTP/2 is framed by `h2` with its
checks switched off. What goes wrong on the way is part of the `WireAnswer`, never an exception.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hyperframe.exceptions
from google.protobuf.message import Message

from stackproof.model import Signal
from stackproof.otlp.senders import ExportError, GrpcSender

Address = tuple[str, int]
Lines = Iterable[str | bytes]

_TIMEOUT_S = 10.0
#: After the last complete answer: how long the server is given to say more (a smuggled second one).
_QUIET_S = 0.15


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes for a connection of their own.

    `linger_s` is how long to listen on after the first answer, for a second one; `frames_s` how
    long after a change of protocol.
    """

    address: Address
    data: bytes
    linger_s: float = 0.0
    frames_s: float = 0.0
    decode: Callable[[bytes], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Http2:
    """One request over HTTP/2 with prior knowledge (h2c)."""

    address: Address
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    trailers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Grpc:
    """One OTLP export over gRPC."""

    address: Address
    signal: Signal
    request: Message
    metadata: tuple[tuple[str, str], ...] = ()


WireRequest = Raw | Http2 | Grpc


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """All that came back: the statuses in their order, every byte, or why there is nothing."""

    statuses: tuple[int, ...] = ()
    body: bytes = b""
    error: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether anything of it was taken: a success, or a change of protocol."""
        return any(status == 101 or 200 <= status < 300 for status in self.statuses)

    @property
    def silent(self) -> bool:
        """Whether nothing came in time: what was asked for may still be done."""
        return not self.statuses and self.error.startswith(TimeoutError.__name__)

    def describe(self, limit: int = 160) -> str:
        """Return the answer in a line."""
        status = " ".join(map(str, self.statuses))
        text = self.body[:limit].decode("utf-8", "replace").split("\r\n\r\n")[-1].strip()
        said = f"HTTP {status}: {text or 'empty'}" if status else "no answer"
        return f"{said} ({self.error})" if self.error else said


def http1(
    address: Address,
    method: str,
    target: str | bytes,
    lines: Lines = (),
    body: bytes | None = None,
    *,
    linger_s: float = 0.0,
    frames_s: float = 0.0,
    decode: Callable[[bytes], bytes] | None = None,
) -> Raw:
    """Return a request with just these header lines, a Host and, for a body, a Content-Length.

    Lines are sent as they are: in any case, twice, with spaces where none belong. The connection
    ends with the answer unless it is to be listened to, or a line says what becomes of it.
    """
    given = [_bytes(line) for line in lines]
    names = {line.split(b":")[0].strip().lower() for line in given}
    if b"host" not in names:
        given.insert(0, b"Host: gateway")
    if body is not None and not names & {b"content-length", b"transfer-encoding"}:
        given.append(b"Content-Length: %d" % len(body))
    if b"connection" not in names and not linger_s and not frames_s:
        given.append(b"Connection: close")
    head = b"%s %s HTTP/1.1" % (_bytes(method), _bytes(target))
    data = b"\r\n".join((head, *given, b"", body or b""))
    return Raw(address, data, linger_s, frames_s, decode)


def _bytes(text: str | bytes) -> bytes:
    return text.encode("latin-1", "xmlcharrefreplace") if isinstance(text, str) else text


def send(wire_request: WireRequest) -> WireAnswer:
    """Send one wire_request on a connection of its own and return what came back."""
    try:
        if isinstance(wire_request, Raw):
            return _send_raw(wire_request)
        if isinstance(wire_request, Http2):
            return _send_http2(wire_request)
        return _send_grpc(wire_request)
    except (OSError, http.client.HTTPException, h2.exceptions.ProtocolError) as error:
        return WireAnswer(error=f"{type(error).__name__}: {error}")
    except hyperframe.exceptions.HyperframeError as error:
        return WireAnswer(error=f"{type(error).__name__}: {error}")


# --- HTTP/1.1 ---


class _Bytes(io.RawIOBase):
    """A socket's bytes. Unlike socket.SocketIO it may be read again after a timeout."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._connection.recv_into(buffer)


class _KeptOpen(io.BufferedReader):
    """Survives the end of an answer, so that the next one can be read from the same bytes."""

    def close(self) -> None:
        pass


class Wire:
    """One HTTP/1.1 connection: write bytes, read answers one by one."""

    def __init__(self, address: Address, timeout_s: float | None = None) -> None:
        self.socket = socket.create_connection(address, timeout=timeout_s or _TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = _KeptOpen(_Bytes(self.socket))
        self.open = True

    def write(self, data: bytes) -> None:
        """Send bytes; a server that hangs up meanwhile may still have answered."""
        try:
            self.socket.sendall(data)
        except OSError:
            self.open = False

    def finish(self) -> None:
        """Say that nothing more comes, so that nobody waits for it."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.open = False

    def makefile(self, *_: object) -> _KeptOpen:
        """For http.client, which takes this for a socket."""
        return self._reader

    def read(self, method: str = "GET") -> WireAnswer:
        """Read one answer; its last bytes may be missing, and then `error` says so."""
        answer = http.client.HTTPResponse(cast(socket.socket, self), method=method)
        try:
            answer.begin()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.open = False
            return WireAnswer(error=f"{type(error).__name__}: {error}")
        body, said = b"", ""
        if answer.status != 101:
            try:
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                said = type(error).__name__
        self.open = self.open and not (answer.will_close or said)
        return WireAnswer((answer.status,), body, said, dict(answer.getheaders()))

    def rest(self, seconds: float) -> bytes:
        """Return whatever else comes within this time."""
        self.socket.settimeout(_QUIET_S)
        ends = time.monotonic() + seconds
        found = []
        while time.monotonic() < ends:
            try:
                part = self._reader.read1(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            if not part:
                break
            found.append(part)
        return b"".join(found)

    def close(self) -> None:
        """End the connection."""
        self.socket.close()


def _send_raw(wire_request: Raw) -> WireAnswer:
    wire = Wire(wire_request.address)
    try:
        wire.write(wire_request.data)
        answer = wire.read(wire_request.data[:5].decode("latin-1").split(" ")[0])
        statuses, body = answer.statuses, answer.body
        if wire_request.decode is not None and statuses == (200,):
            with suppress(ValueError):
                body = wire_request.decode(body)
        if statuses == (101,):
            listen_s = wire_request.frames_s
        else:
            listen_s = wire_request.linger_s if wire.open else 0.0
        if listen_s:
            more = wire.rest(listen_s)
            statuses += _statuses(more)
            body += more
        return WireAnswer(statuses, body, answer.error, answer.headers)
    finally:
        wire.close()


def _statuses(data: bytes) -> tuple[int, ...]:
    """Return the statuses of further answers in these bytes."""
    heads = [part for part in data.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]
    return tuple(int(part[:3]) for part in heads)


# --- HTTP/2 ---


def _send_http2(wire_request: Http2) -> WireAnswer:
    with socket.create_connection(wire_request.address, timeout=_TIMEOUT_S) as connection:
        return _Http2Exchange(connection).run(wire_request)


class _Http2Exchange:
    """One request and its answer."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        # Nothing is checked or put right on the way out: that is the point.
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                header_encoding=None,
            )
        )
        self.statuses: list[int] = []
        self.body: list[bytes] = []
        self.error = ""

    def run(self, wire_request: Http2) -> WireAnswer:
        self.h2.initiate_connection()
        plain = not wire_request.body and not wire_request.trailers
        self.h2.send_headers(1, _pairs(wire_request.headers), end_stream=plain)
        if wire_request.body:
            self.h2.send_data(1, wire_request.body[:16384], end_stream=not wire_request.trailers)
        if wire_request.trailers:
            self.h2.send_headers(1, _pairs(wire_request.trailers), end_stream=True)
        self.socket.sendall(self.h2.data_to_send())
        while not self._ended():
            pass
        return WireAnswer(tuple(self.statuses), b"".join(self.body), self.error)

    def _ended(self) -> bool:
        """Read once; tell whether the answer is complete or none will come."""
        data = self.socket.recv(65536)
        if not data:
            self.error = self.error or "connection closed"
            return True
        # A list: events after the one that ends the answer must be taken too.
        ended = [self._take(event) for event in self.h2.receive_data(data)]
        self.socket.sendall(self.h2.data_to_send())
        return True in ended

    def _take(self, event: Any) -> bool:
        if isinstance(event, h2.events.ResponseReceived):
            self.statuses.append(int(dict(event.headers or ())[b":status"]))
        elif isinstance(event, h2.events.DataReceived):
            self.body.append(event.data or b"")
            self.h2.acknowledge_received_data(event.flow_controlled_length or 0, 1)
        elif isinstance(event, h2.events.StreamReset):
            self.error = f"stream reset, error {event.error_code}"
            return True
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.error = f"connection terminated, error {event.error_code}"
            return True
        return isinstance(event, h2.events.StreamEnded)


def _pairs(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(_bytes(name), _bytes(value)) for name, value in headers]


# --- gRPC ---


def _send_grpc(wire_request: Grpc) -> WireAnswer:
    host, port = wire_request.address
    with GrpcSender(f"{host}:{port}", wire_request.metadata) as exporter:
        try:
            exporter.send(wire_request.signal, wire_request.request)
        except ExportError as error:
            return WireAnswer(error=str(error))
    return WireAnswer((200,))
