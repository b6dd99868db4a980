"""Parts of the local stack that need no program: its Secrets, and what it says of a process."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import bcrypt
import pytest

from stackproof.checkout import Checkout
from stackproof.deployment import Deployment
from stackproof.stack import process
from stackproof.stack.secrets import SecretStore, materialize, synced_values


def test_without_alloy_a_tenant_sends_the_password_that_the_gateway_has_hashed(
    checkout: Checkout,
) -> None:
    release = Deployment.load(checkout).with_synthetic(2).lgtm()
    store = SecretStore()
    users = materialize(release, store)["gateway-users"]["users"]
    hashes = dict(line.split() for line in users.splitlines())
    passwords = synced_values(release, "gateway-users", store)
    assert passwords.keys() == hashes.keys()
    assert len(set(passwords.values())) == len(passwords)
    for name, password in passwords.items():
        assert bcrypt.checkpw(password.encode(), hashes[name].encode())
    assert not bcrypt.checkpw(passwords["soev"].encode(), hashes["enterprise-a"].encode())


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
