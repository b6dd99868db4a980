"""Deployments that answer in ways of their own: what they prove, and that nobody waits for ever."""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import urllib3
from pytest_socket import enable_socket

from stackproof import cli
from stackproof.errors import ExitCode
from stackproof.otlp import synthetic
from stackproof.otlp.http import exchange
from stackproof.stack.remote import preflight

TENANTS = ("acme", "globex")


class _Server(BaseHTTPRequestHandler):
    """Shows every tenant the tokens that it has sent, by its key, in the answer to any question."""

    known: dict[str, set[str]]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if tenant := self._tenant():
            self.known[tenant] |= {token.decode() for token in _TOKEN.findall(body)}
            self.answer(200)
        else:
            self.refuse()

    def do_GET(self) -> None:
        if tenant := self._tenant():
            self.answer(200, json.dumps(sorted(self.known[tenant])).encode())
        else:
            self.refuse()

    def _tenant(self) -> str | None:
        name = self.headers.get("Authorization", "").removeprefix("Bearer key-of-")
        return name if name in TENANTS else None

    def refuse(self) -> None:
        self.answer(401)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


_TOKEN = re.compile(synthetic.TOKEN_PATTERN)


class _Old(_Server):
    """HTTP/1.0: a connection for each request."""


class _Closing(_Server):
    """Ends connections that it has not said that it would end."""

    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        super().answer(status, body, **headers)
        self.close_connection = True


class _Packing(_Server):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        super().answer(status, gzip.compress(body), Content_Encoding="gzip", **headers)


class _Redirecting(_Server):
    def refuse(self) -> None:
        self.answer(302, Location="https://login.example/")


class _Throttling(_Server):
    def refuse(self) -> None:
        self.answer(429)


class _Open(_Server):
    def refuse(self) -> None:
        self.answer(200, b"[]")


class _LoginPage(_Server):
    """The address of something else: one page, whoever asks for whatever."""

    def do_GET(self) -> None:
        self.answer(200, b"<!DOCTYPE html><title>Log in</title>")


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    enable_socket()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("server", "code", "told"),
    [
        (_Server, ExitCode.GOOD, "every owner sees its own"),
        (_Old, ExitCode.GOOD, "every owner sees its own"),
        (_Closing, ExitCode.GOOD, "every owner sees its own"),
        (_Packing, ExitCode.GOOD, "every owner sees its own"),
        (_Redirecting, ExitCode.UNDECIDED, "answered with HTTP 302 to https://login.example/ "),
        (_Throttling, ExitCode.UNDECIDED, "answered with HTTP 429 instead of 401"),
        (_Open, ExitCode.BAD, "answered with HTTP 200 instead of 401"),
        (_LoginPage, ExitCode.UNDECIDED, "no leak was seen, but not all is proven"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_proven(
    server: type[_Server],
    code: ExitCode,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Who is asked to come again, or sees what everybody sees, was neither refused nor let in."""
    server.known = defaultdict(set)
    with _serving(server) as url:
        lines = [f"read: {{logs: '{url}'}}", f"write: {{otlpHttp: '{url}'}}", "tenants:"]
        for tenant in TENANTS:
            (tmp_path / tenant).write_text(f"key-of-{tenant}")
            lines.append(f"  - {{name: {tenant}, auth: {{bearer: {{file: {tenant}}}}}}}")
        file = tmp_path / "targets.yaml"
        file.write_text("\n".join(lines))
        words = ["prove", "--targets", str(file), "--apis", "loki.query-range", "--deadline", "0.5"]
        assert cli.main([*words, "--report", str(tmp_path)]) == code
    assert told in capsys.readouterr().out


def test_an_api_that_cannot_be_asked_is_told_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _serving(_Open) as url:
        file = tmp_path / "targets.yaml"
        where = f"read: {{logs: '{url}'}}, write: {{otlpHttp: '{url}'}}"
        file.write_text(f"{{{where}, tenants: [{{name: acme}}, {{name: globex}}]}}")
        words = ["prove", "--targets", str(file), "--apis", "loki.labels"]
        assert cli.main([*words, "--report", str(tmp_path)]) == ExitCode.USAGE
    assert "loki.labels: no OTLP makes a label with a name" in capsys.readouterr().err


class _Endless(BaseHTTPRequestHandler):
    """Sends a little, over and over."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            return


@pytest.mark.parametrize("server", [_Endless, _Packing])
@pytest.mark.parametrize("ask", [exchange, preflight])
def test_an_answer_has_its_time(
    server: type[BaseHTTPRequestHandler], ask: Callable[..., object]
) -> None:
    """However steadily it comes; and whether somebody is there shows before its end."""
    began = time.monotonic()
    with _serving(server) as url, urllib3.PoolManager(block=True, maxsize=1) as pool:
        _Packing.known = defaultdict(set)
        if ask is preflight:
            preflight(url, pool)
        elif server is _Endless:
            with pytest.raises(urllib3.exceptions.TimeoutError, match="not whole within"):
                exchange(pool, "GET", url, timeout_s=0.3)
        else:
            assert exchange(pool, "GET", url, timeout_s=0.3).body == b""
        # The connection is free again, or a new one is made.
        pool.request("HEAD", url, retries=False, timeout=1.0, pool_timeout=0.1)
        assert time.monotonic() - began < 3
