"""How a read API is described, asked and answered.

A :class:`ReadApi` is a row of data. Its question is such that the answer would hold the tokens of
every tenant whose data the reader can see, so that one request proves a whole row of the matrix.
Whether it does is read from the whole body: a status is no evidence (Tempo answers 200 with an
empty trace, and 404 may be a mistyped path).
"""

from __future__ import annotations

import json
import shlex
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from string import Template
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

import urllib3
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

from stackproof.errors import StackproofError
from stackproof.model import SIGNAL_OF, Access, Backend, Signal, Tls
from stackproof.otlp.http import exchange, status_line
from stackproof.otlp.senders import basic_auth
from stackproof.waiting import until
from stackproof.wording import counted

_Result = TypeVar("_Result")


class Mark(StrEnum):
    """By what an answer shows whose data is in it."""

    TOKEN = "token"
    TRACE_ID = "trace id"


@dataclass(frozen=True, slots=True)
class Question:
    """What a reader asks for: all that a run has sent in a window of time.

    `trace_id` only for APIs that are asked for one trace. Times are nanoseconds of the wall clock.
    """

    run: str
    start_ns: int
    end_ns: int
    trace_id: str = ""

    def values(self) -> dict[str, str]:
        """Return what a row's `$name` placeholders stand for."""
        return {
            "run": self.run,
            "trace_id": self.trace_id,
            "start_ns": str(self.start_ns),
            "end_ns": str(self.end_ns),
            "start_s": str(self.start_ns // 10**9),
            "end_s": str(-(-self.end_ns // 10**9)),
        }


@dataclass(frozen=True, slots=True)
class Request:
    """One request, ready to be sent. `headers` holds no credential; `credential` is how curl is
    told to send one, without the secret.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    credential: str = ""

    def line(self) -> str:
        """Return method, URL and headers in one line, as a violation shows them."""
        headers = "".join(f" {name}: {value};" for name, value in self.headers.items())
        return f"{self.method} {self.url}{headers.rstrip(';')}"

    def curl(self) -> str:
        """Return a shell command that sends it again; secrets are left to the shell's variables."""
        words = ["curl", "--silent", "--show-error", "--include"]
        if self.url.startswith("ws"):
            words.append("--no-buffer")
        elif self.method != "GET":
            words += ["--request", self.method]
        for name, value in self.headers.items():
            words += ["--header", f"{name}: {value}"]
        text = " ".join(shlex.quote(word) for word in words)
        if self.credential:
            text += f" {self.credential}"
        if self.body is not None:
            encoded = shlex.quote(b64encode(self.body).decode("ascii"))
            text = f"echo {encoded} | base64 -d | {text} --data-binary @-"
        return f"{text} {shlex.quote(self.url)}"


@dataclass(frozen=True, slots=True)
class ReadApi:
    """One read API of one backend.

    `path` follows the backend's URL in :class:`~stackproof.stack.base.Access`; `path` and `params`
    hold `$name` placeholders of :meth:`Question.values`. `shows` says where in the answer the token
    stands. `excluded` is the reason why the API cannot be proven by a token, or empty.
    """

    id: str
    backend: Backend
    path: str
    params: tuple[tuple[str, str], ...] = ()
    shows: str = ""
    method: str = "GET"
    #: The body of the request, where it is more than the parameters as a form.
    payload: Callable[[Question], bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Turns the body into readable bytes (decompression).
    decode: Callable[[bytes], bytes] | None = None
    mark: Mark = Mark.TOKEN
    #: Asked for one owner's data by name: N² questions instead of N.
    pairwise: bool = False
    #: Whether the backend answers it for several tenants at once.
    federated: bool = True
    stream: bool = False
    #: Shows what is kept in memory alone: a restart of the backend takes it away.
    volatile: bool = False
    excluded: str = ""

    @property
    def signal(self) -> Signal:
        """The signal whose data it reads."""
        return SIGNAL_OF[self.backend]

    def request(self, access: Access, question: Question) -> Request:
        """Return the request by which this reader asks that question (without credential)."""
        values = question.values()
        url = access.urls[self.backend] + Template(self.path).substitute(values)
        query = urlencode([(key, Template(value).substitute(values)) for key, value in self.params])
        headers = {**self.headers, **access.headers}
        body = None
        if self.payload is not None:
            body = self.payload(question)
        elif self.method == "POST":
            body = query.encode("ascii")
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        elif query:
            url = f"{url}?{query}"
        if self.stream:
            url = "ws" + url.removeprefix("http")
        return Request(self.method, url, headers, body, access.curl())


def rows(backend: Backend, prefix: str) -> Callable[..., ReadApi]:
    """Return what makes the rows of a backend: `api(name, path, shows, *params, **fields)`.

    Its paths follow `prefix`.
    """

    def api(name: str, path: str, shows: str, *params: tuple[str, str], **fields: Any) -> ReadApi:
        return ReadApi(
            f"{backend}.{name}", backend, f"{prefix}{path}", params=params, shows=shows, **fields
        )

    return api


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the whole decoded body, or the reason why nothing did.

    `status` is None where there was no HTTP answer; `elapsed_ms` is the time until its last byte.
    """

    request: Request
    status: int | None
    body: bytes
    error: str
    elapsed_ms: float
    #: Where a redirection leads.
    location: str = ""

    @property
    def line(self) -> str:
        """What came back, without the body."""
        return self.error or status_line(self.status, self.location)

    def describe(self, limit: int = 300) -> str:
        """Return the answer in a line, its body cut to `limit` characters."""
        if self.error:
            return self.line
        text = self.body[:limit].decode("utf-8", "replace").strip()
        more = f" … ({counted(len(self.body), 'byte')})" if len(self.body) > limit else ""
        return f"{self.line}: {text or 'empty body'}{more}"


class Client:
    """Asks questions; one pool of connections, safe to share among threads.

    It follows no redirect, repeats nothing and reads no proxy from the environment.
    """

    def __init__(self, connections: int = 16, timeout_s: float = 10.0) -> None:
        self.timeout_s = timeout_s
        self._connections = connections
        self._pools: dict[Tls, urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    @property
    def pool(self) -> urllib3.PoolManager:
        """The connections of whoever has no certificate of its own."""
        return self.pool_of(Tls())

    def pool_of(self, tls: Tls) -> urllib3.PoolManager:
        """Return the connections that are made with these files."""
        with self._lock:
            if tls not in self._pools:
                self._pools[tls] = urllib3.PoolManager(
                    num_pools=8,
                    maxsize=self._connections,
                    block=True,
                    ca_certs=tls.ca,
                    cert_file=tls.cert,
                    key_file=tls.key,
                )
            return self._pools[tls]

    def ask(self, api: ReadApi, access: Access, question: Question) -> Answer:
        """Ask one question. What goes wrong is part of the answer, never an exception."""
        return self.send(api, access, api.request(access, question))

    def get(self, access: Access, backend: Backend, path: str, params: Mapping[str, str]) -> Answer:
        """Ask something of a backend that is no read API."""
        url = f"{access.urls[backend]}{path}?{urlencode(params)}"
        return self.send(ReadApi("", backend, path), access, Request("GET", url, access.headers))

    def data(self, access: Access, backend: Backend, path: str, params: Mapping[str, str]) -> Any:
        """Return what a backend answers in JSON.

        Raises:
            StackproofError: It answers otherwise.
        """
        answer = self.get(access, backend, path, params)
        if answer.status != 200:
            raise StackproofError(answer.describe(), f"{answer.request.url} as {access.name}")
        return json.loads(answer.body)

    def send(self, api: ReadApi, access: Access, request: Request) -> Answer:
        """Send a request that was made for `api`, with the credential of `access`."""
        headers = {**request.headers, **basic_auth(access.auth), **access.secrets}
        began = time.perf_counter()
        status: int | None = None
        body, error, location = b"", "", ""
        try:
            if api.stream:
                status, body = self._listen(request.url, headers, access.tls)
            else:
                answer = exchange(
                    self.pool_of(access.tls),
                    request.method,
                    request.url,
                    timeout_s=self.timeout_s,
                    body=request.body,
                    headers=headers,
                )
                status, body, location = answer.status, answer.body, answer.location
            if api.decode is not None and status == 200:
                body = api.decode(body)
        except (urllib3.exceptions.HTTPError, WebSocketException, OSError, ValueError) as caught:
            error = f"{type(caught).__name__}: {caught}"
        elapsed_ms = (time.perf_counter() - began) * 1000
        return Answer(request, status, body, error, elapsed_ms, location)

    def _listen(self, url: str, headers: Mapping[str, str], tls: Tls) -> tuple[int, bytes]:
        """Read a websocket until it has been quiet for a while after its first message."""
        first_s, quiet_s = 1.0, 0.1
        ends = time.monotonic() + self.timeout_s
        try:
            with connect(
                url,
                additional_headers=dict(headers),
                open_timeout=self.timeout_s,
                close_timeout=0.2,
                max_size=None,
                proxy=None,
                ssl=_context(tls) if url.startswith("wss:") else None,
            ) as socket:
                frames: list[bytes] = []
                try:
                    while time.monotonic() < ends:
                        frame = socket.recv(timeout=quiet_s if frames else first_s)
                        frames.append(frame.encode() if isinstance(frame, str) else frame)
                except TimeoutError:
                    pass
                return 101, b"\n".join(frames)
        except InvalidStatus as refused:
            return refused.response.status_code, bytes(refused.response.body or b"")

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key)
    return context


def poll(
    look: Callable[[], tuple[_Result | None, str]],
    deadline_s: float,
    description: str,
    *,
    interval_s: float = 0.03,
) -> _Result:
    """Call `look` until it gives a result, at most for `deadline_s` seconds.

    `look` returns the result, or None, and what it has seen. A StackproofError that quotes the last
    observation is raised where the time is up; `look` is always called at least once.
    """
    result, seen = until(
        look, lambda looked: looked[0] is not None, within_s=deadline_s, every_s=interval_s
    )
    if result is None:
        raise StackproofError(
            f"not seen within {deadline_s:g} s; last observation: {seen}", where=description
        )
    return result
