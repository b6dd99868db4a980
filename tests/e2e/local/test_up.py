"""`stackproof up`: what it prints can be typed, until Ctrl-C."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from tests.foreground import usual_signals
from tests.ran import ran

from stackproof.backends import poll
from stackproof.errors import ExitCode

_STACKPROOF = [sys.executable, "-m", "stackproof.cli"]
_VISIBLE_S = 20.0


@contextmanager
def _held(*words: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Yield the running command, and what it has printed when all was there."""
    with subprocess.Popen(
        [*_STACKPROOF, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=usual_signals,
    ) as running:
        try:
            assert running.stdout
            told = []
            for line in running.stdout:
                told.append(line)
                if "Ctrl-C" in line:
                    break
            yield running, told
        finally:
            running.terminate()


def test_what_is_printed_can_be_typed() -> None:
    with _held("up", "--tenant", "enterprise-a") as (running, told):
        (password,) = [line for line in told if line.startswith("PASSWORD=")]
        asks = [line for line in told if line.startswith("curl")]
        assert len(asks) == 3
        for ask in asks:

            def look(ask: str = ask) -> tuple[bool | None, str]:
                said = subprocess.run(
                    ["bash", "-c", password + ask], capture_output=True, text=True, check=True
                ).stdout
                seen = "200 OK" in said and re.search("sp[0-9a-f]{24}", said)
                return bool(seen) or None, said

            poll(look, _VISIBLE_S, ask)
            _, url = shlex.split(ask)[-2:]
            credential = ("enterprise-a", password.strip().partition("=")[2])
            assert requests.get(url, auth=credential, timeout=10).ok
            assert requests.get(url, auth=("soev", credential[1]), timeout=10).status_code == 401
        passwords = re.findall(r"its password: (\S+)", "".join(told))
        tenants = re.findall(r"^(\S+) sends OTLP", "".join(told), re.MULTILINE)
        for each in zip(tenants, passwords, strict=True):
            assert requests.get(url, auth=each, timeout=10).ok, each
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == ExitCode.GOOD


def test_a_component_that_ends_is_told() -> None:
    with _held("up") as (running, _):
        children = subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(running.pid)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        (mimir,) = re.findall(r"^ *(\d+) \S*/mimir ", children, re.MULTILINE)
        os.kill(int(mimir), signal.SIGKILL)
        _, said = running.communicate(timeout=30)
        assert running.returncode == ExitCode.UNAVAILABLE
        assert re.search(r"mimir: killed by SIGKILL", said)


def test_a_kept_proof_that_failed_can_be_looked_into(tmp_path: Path) -> None:
    hurried = ("prove", "--deadline", "0.001", "--keep", "--report", str(tmp_path))
    with _held(*hurried) as (running, told):
        assert any(line.startswith("curl") for line in told)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
        assert running.returncode == ExitCode.UNDECIDED, said


def test_an_unknown_tenant_starts_nothing() -> None:
    done = ran([*_STACKPROOF, "up", "--tenant", "nobody"])
    assert done.returncode == ExitCode.USAGE
    assert "no tenant is called nobody" in done.stderr
