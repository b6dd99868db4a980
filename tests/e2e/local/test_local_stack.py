"""The local stack itself: it leaves nothing behind, shares the machine, and explains failures."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackproof import isolation
from stackproof.attacks import AttackedStack
from stackproof.backends import Client
from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.isolation.verdict import Verdict
from stackproof.model import Signal
from stackproof.repo.checkout import Checkout
from stackproof.stack.local import LocalStack
from stackproof.twins import Edit, Layer, Twin
from stackproof.waiting import until


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_two_stacks_at_once_do_not_meet() -> None:
    deployment = Deployment.load(Checkout.find())
    with LocalStack(deployment) as one, LocalStack(deployment) as other:
        assert one.gateway_url != other.gateway_url
        first = isolation.prove(one, signals=[Signal.LOGS])
        second = isolation.prove(other, signals=[Signal.LOGS])
    assert (first.verdict, second.verdict) == (Verdict.ISOLATED, Verdict.ISOLATED)


def test_who_has_more_memory_than_its_pod_gets_is_named() -> None:
    """On a cluster it would be killed."""
    values = {"loki": {"resources": {"limits": {"memory": "16Mi"}}}}
    with LocalStack(Deployment.load(Checkout.find()).with_values(lgtm=[values])) as stack:
        named = stack.over_memory()
        assert named.keys() == {"loki"}
        assert re.fullmatch(r"loki has had \d+ MB of memory, its pod gets 17", named["loki"])
        with Client() as client:
            attacked = AttackedStack(stack, client)
            attacked.prepare()
            (harm,) = attacked.harm_to_victim()
            assert harm.startswith("loki has had ")
            # Only the attack that was to blame has done it.
            assert list(attacked.harm_to_victim()) == []


def test_a_component_that_does_not_start_is_shown_with_its_log() -> None:
    misspelt = Twin(
        name="misspelt",
        fault="the gateway's configuration does not parse",
        layer=Layer.LOCAL,
        caught_by="isolation",
        reason=".",
        edits=[Edit("charts/lgtm/templates/gateway.yaml", "auto_https off", "auto_https of")],
    )
    with misspelt.deployment(Checkout.find()) as broken:
        stack = LocalStack(broken)
        with pytest.raises(StackproofError, match=r"(?s)gateway: exited with 1.*auto_https"), stack:
            pass
    assert not stack.components


_HOLD = """
import sys, time
from stackproof.repo.checkout import Checkout
from stackproof.cli import _terminated
from stackproof.flux.deployment import Deployment
from stackproof.stack.local import LocalStack
import signal
signal.signal(signal.SIGTERM, _terminated)
# Whoever runs the tests in a shell's background has it ignored, and this process inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
with LocalStack(Deployment.load(Checkout.find())) as stack:
    print(stack.directory, *(stack.process(n).pid for n in stack.components), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held() -> Iterator[tuple[subprocess.Popen[str], Path, list[int]]]:
    """A process that holds a running stack, its directory, and the pids of the programs."""
    argv = [sys.executable, "-c", _HOLD]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        directory, *pids = holder.stdout.readline().split()
        yield holder, Path(directory), [int(pid) for pid in pids]
        holder.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_program_outlives_us(
    held: tuple[subprocess.Popen[str], Path, list[int]], number: signal.Signals
) -> None:
    holder, directory, pids = held
    assert all(map(_alive, pids)) and directory.is_dir()
    os.kill(holder.pid, number)
    gone = until(lambda: not any(map(_alive, pids)), within_s=10)
    assert gone, f"still there after {number.name}"
    holder.wait(timeout=10)
    if number is not signal.SIGKILL:
        assert not directory.exists()
