"""Parts of the local stack that need no program: its Secrets, and what it says of a process."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import bcrypt
import pytest

from stackproof.flux.deployment import Deployment
from stackproof.repo.checkout import Checkout
from stackproof.stack import pod, process, scratch
from stackproof.stack.secrets import SecretStore, materialize, synced_values
from stackproof.waiting import until


def test_without_alloy_a_tenant_sends_the_password_that_the_gateway_has_hashed(
    checkout: Checkout,
) -> None:
    release = Deployment.load(checkout).with_synthetic(2).lgtm()
    store = SecretStore()
    names = ("admin", "soev", "enterprise-a", "enterprise-b", "synthetic-0001", "synthetic-0002")
    made = materialize(release, store)
    hashes = dict(made[f"gateway-user-{name}"]["user"].split() for name in names)
    passwords = {
        name: synced_values(release, f"gateway-user-{name}", store)["password"] for name in names
    }
    assert len(set(passwords.values())) == len(passwords)
    for name, password in passwords.items():
        assert bcrypt.checkpw(password.encode(), hashes[name].encode())
    assert not bcrypt.checkpw(passwords["soev"].encode(), hashes["enterprise-a"].encode())


def test_a_volumes_files_can_be_read_by_whoever_a_container_runs_as(tmp_path: Path) -> None:
    """As the kubelet's can: Docker's containers have the users of their pods."""
    pod._swap(tmp_path, {"Caddyfile": "one"})
    pod._swap(tmp_path, {"Caddyfile": "two"})
    file = (tmp_path / "Caddyfile").resolve()
    assert file.read_text() == "two"
    assert file.stat().st_mode & 0o004
    assert file.parent.stat().st_mode & 0o005 == 0o005


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
def test_memory_and_processor_time_of_a_process(tmp_path: Path) -> None:
    busy = "x = bytearray(50_000_000)\nwhile True: pass"
    child = process.Process(
        "busy", [sys.executable, "-c", busy], dict(os.environ), tmp_path, tmp_path / "log"
    )
    assert (child.peak_bytes(), child.cpu_s()) == (0, 0.0)
    child.start()
    try:
        ends = time.monotonic() + 20
        while (child.peak_bytes() < 50_000_000 or not child.cpu_s()) and time.monotonic() < ends:
            time.sleep(0.01)
        assert 50_000_000 <= child.peak_bytes() < 10**9
        assert 0 < child.cpu_s() < 60
    finally:
        child.kill()
    assert (child.peak_bytes(), child.cpu_s()) == (0, 0.0)
    assert process.peak_bytes() > 10**6


def test_temporary_files_of_a_program_go_with_its_directory(tmp_path: Path) -> None:
    """Alloy makes some at each start and leaves them; others do where they are killed."""
    makes = [sys.executable, "-c", "import tempfile; tempfile.mkdtemp(prefix='left-')"]
    child = process.Process("makes", makes, {}, tmp_path, tmp_path / "log")
    child.start()
    assert until(child.ended, within_s=30) == "exited with 0"
    assert len(list(tmp_path.glob("left-*"))) == 1


_HOLD = """
import sys, time
from pathlib import Path
from stackproof.stack import scratch
scratch._ROOM_BYTES = 0
held = scratch.Scratch(memory=Path(sys.argv[1]))
print(held.path, flush=True)
time.sleep(60)
"""


def test_what_a_killed_stack_left_in_memory_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(scratch, "_ROOM_BYTES", 0)
    environment = {key: value for key, value in os.environ.items() if key != "TMPDIR"}
    argv = [sys.executable, "-c", _HOLD, str(tmp_path)]
    (tmp_path / "stackproof-foreign").mkdir()  # nobody says whose it is
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout
        held = Path(holder.stdout.readline().strip())
        one = scratch.Scratch(memory=tmp_path)
        assert held.is_dir(), "its process lives"
        holder.kill()
    other = scratch.Scratch(memory=tmp_path)
    assert not held.exists()
    assert one.path.is_dir()
    assert (tmp_path / "stackproof-foreign").is_dir()
    one.remove()
    other.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["stackproof-foreign"]


def test_a_stack_that_starts_meanwhile_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(scratch, "_ROOM_BYTES", 0)
    starting = False
    lock = fcntl.flock

    def another_starts(file: IO[str], how: int) -> None:
        nonlocal starting
        if not starting:  # at the worst moment: the file is there, and nobody holds it yet
            starting = True
            scratch.sweep(tmp_path)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", another_starts)
    one = scratch.Scratch(memory=tmp_path)
    assert starting
    assert one.path.is_dir()
    one.remove()
    assert not list(tmp_path.iterdir())


def test_what_is_kept_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_ROOM_BYTES", 0)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    kept = scratch.Scratch(keep=True, memory=tmp_path / "memory")
    kept.remove()
    assert kept.path.parent == tmp_path
    assert kept.path.is_dir()
