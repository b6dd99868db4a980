"""A gateway that is not there is told before anything is sent."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_socket import enable_socket

from stackproof.cli import main
from stackproof.errors import ExitCode
from stackproof.stack.remote import variable


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """These listen on, and connect to, this machine alone."""
    enable_socket()
    for tenant in ("soev", "enterprise-a"):
        monkeypatch.setenv(variable(tenant), "secret")


@contextmanager
def _silent() -> Iterator[int]:
    """Give a port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def _closed() -> int:
    with _silent() as port:
        return port


@pytest.mark.usefixtures("loopback")
@pytest.mark.parametrize("kind", ["closed", "silent", "no such host"])
def test_nobody_there(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with _silent() as silent:
        where = {
            "closed": f"127.0.0.1:{_closed()}",
            "silent": f"127.0.0.1:{silent}",
            "no such host": "gateway.invalid:8080",
        }[kind]
        began = time.monotonic()
        words = ["prove", "--gateway-url", f"http://{where}", "--tenants", "soev,enterprise-a"]
        assert main(words) == ExitCode.UNAVAILABLE
    assert time.monotonic() - began < 15
    said = capsys.readouterr()
    assert f"http://{where}: nothing answers there" in said.err
    assert "nothing was sent" in said.err
    assert "left behind" not in said.out + said.err


@pytest.mark.usefixtures("loopback")
def test_nobody_at_one_of_the_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{_closed()}"
    file = tmp_path / "targets.yaml"
    where = f"{{read: {{metrics: '{url}'}}, write: {{otlpHttp: '{url}'}}"
    file.write_text(f"{where}, tenants: [{{name: a}}, {{name: b}}]}}")
    assert main(["prove", "--targets", str(file)]) == ExitCode.UNAVAILABLE
    assert f"{url}: nothing answers there" in capsys.readouterr().err
