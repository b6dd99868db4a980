"""A change rolls out under the eyes of all tenants: nobody sees another's at any moment."""

from __future__ import annotations

import gc
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from tests.foreground import usual_signals

from stackproof import upgrade
from stackproof.backends import Client
from stackproof.flux.deployment import Deployment
from stackproof.isolation.delivery import sending
from stackproof.model import Backend, EntryPoint, Signal
from stackproof.otlp import synthetic
from stackproof.otlp.synthetic import Emission
from stackproof.repo.checkout import Checkout
from stackproof.stack.rolling import RollingStack
from stackproof.stack.rollout import ENDED, ENDING, MOUNTED, READY, STARTED
from stackproof.stack.service_proxy import ServiceProxy
from stackproof.stack.targets import Targets, TargetsStack
from stackproof.toolchain import programs
from stackproof.twins import TWINS
from stackproof.upgrade import UpgradeVerdict
from stackproof.upgrade.watch import Watch

pytestmark = [pytest.mark.needs_restart, pytest.mark.xdist_group("upgrade")]


def test_a_change_is_isolated_at_every_moment() -> None:
    """The gateway with its surge, Mimir without, and no other program."""
    now = Deployment.load(Checkout.find())
    changed = now.with_values(
        lgtm=[{"gateway": {"maxBodySize": "15MiB"}, "mimir": {"exemplars": 99_999}}]
    )
    with RollingStack(now) as stack:
        found = upgrade.prove(stack, changed)
    assert found.verdict is UpgradeVerdict.ISOLATED, found.reasons
    assert set(found.rolled) == {"gateway", "mimir"}
    assert all(each.acknowledged > 100 for each in found.delivered)
    at = {(each.component, each.what): each.at for each in found.events}
    # Files first, while the old gateway runs; then the new one, and the old one ends after its
    # preStop. Of Mimir there is one at a time.
    assert at["gateway", MOUNTED] + 2 <= at["gateway", STARTED]
    assert at["gateway", READY] + 5 <= at["gateway", ENDING]
    assert at["mimir", ENDED] <= at["mimir", STARTED]
    answers = {each.name: each for each in found.availability}
    # A restart is seen, and what is not restarted is there: but for a connection that is closed.
    assert 0.2 < answers["reads of mimir"].unanswered_s < 30
    for name in ("reads of loki", "reads of tempo", "all to Alloy", "refusals"):
        assert answers[name].unanswered_s < 1.5, answers[name]


#: As it was: an Alloy that is told to end takes its queue with it.
HASTY = next(twin for twin in TWINS if twin.name == "alloy-ends-at-once")


@pytest.mark.endurance
@pytest.mark.parametrize("hasty", [True, False], ids=["at-once", "as-deployed"])
def test_alloy_sends_what_it_kept_before_it_is_replaced(hasty: bool) -> None:
    """Loki is away, Alloy keeps, Loki is back, and before it is asked again Alloy is replaced."""
    right = Deployment.load(Checkout.find())
    changed = right.with_values(
        lgtm=[{"loki": {"maxQuerySeries": 501}}],
        tenant=[{"alloy": {"resources": {"limits": {"memory": "777Mi"}}}}],
    )
    with (
        HASTY.deployment(Checkout.find()) as faulty,
        RollingStack(faulty if hasty else right) as stack,
    ):
        found = upgrade.prove(stack, changed, patience_s=20 if hasty else 60)
    assert "loki" in found.rolled and len(found.rolled) > len(found.tenants)
    if hasty:
        assert found.verdict is UpgradeVerdict.LOST
        assert any(re.search(r"s logs: \d+ of \d+ lost", told) for told in found.reasons), (
            found.reasons
        )
    else:
        assert found.verdict is UpgradeVerdict.ISOLATED, found.reasons


def test_an_interrupted_roll_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither the files of the revision nor a program, when Ctrl-C comes while the stack runs."""
    command = [sys.executable, "-m", "stackproof.cli", "upgrade", "--from", "HEAD", "--report"]
    # As if another binary took over: something rolls though nothing has changed.
    another = shutil.copy2(programs.find("caddy"), tmp_path / "another")
    caddy = ["--program", f"caddy={another}"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*command, str(tmp_path / "report"), *caddy],
        env=environment,
        cwd=Checkout.find().root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=usual_signals,
    ) as started:
        try:
            assert started.stdout
            told = next(line for line in started.stdout if line.startswith("rolling"))
            assert "all send" in told
            assert list(tmp_path.glob("stackproof-*"))
            started.send_signal(signal.SIGINT)
            _, problems = started.communicate(timeout=60)
        finally:
            started.kill()
    assert (started.returncode, problems) == (130, "stackproof: interrupted\n")
    assert not [path for path in tmp_path.glob("stackproof-*") if "ports" not in path.name]
    environments = map(_environment, Path("/proc").glob("[0-9]*"))
    assert not [each for each in environments if os.fsencode(tmp_path) in each]


@pytest.fixture
def silent(tmp_path: Path) -> tuple[TargetsStack, Mapping[str, Emission]]:
    """A deployment where nobody listens, and what its tenants would have sent."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    file = tmp_path / "targets.yaml"
    everything = f"{{traces: {url}, metrics: {url}, logs: {url}}}"
    file.write_text(
        f"read: {everything}\nwrite: {{otlpHttp: {url}}}\n"
        "tenants: [{name: acme}, {name: globex}]\n"
    )
    stack, run = TargetsStack(Targets.load(file)), synthetic.new_run()
    return stack, {
        tenant: synthetic.new_emission(tenant, run, tuple(Signal)) for tenant in stack.tenants
    }


def test_what_was_never_answered_is_told(
    silent: tuple[TargetsStack, Mapping[str, Emission]],
) -> None:
    """It saw nothing that ought not to be, as it saw nothing at all."""
    with Watch.over(*silent, every_s=0.1) as watch:
        time.sleep(1)
    told = "\n".join(watch.unwatched())
    assert not watch.moments
    for tenant in ("acme", "globex"):
        assert f"no intruder that uses {tenant}'s access ever got an answer" in told
        for backend in Backend:
            assert f"{tenant} never saw its own in {backend}" in told


def test_everybody_asks_anew_and_through_a_kept_connection(
    silent: tuple[TargetsStack, Mapping[str, Emission]],
) -> None:
    """So that the old pod is asked to its end, and the new one from its beginning."""
    with Watch.over(*silent, every_s=0.1) as watch:
        turns = list(itertools.islice(watch._turns(["one", "other"]), 4))
    assert set(turns) == set(itertools.product(["one", "other"], [True, False]))


def _fail(*_: object) -> None:
    raise ValueError("a fault of ours")


def test_who_looks_no_more_ends_the_roll(
    silent: tuple[TargetsStack, Mapping[str, Emission]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stackproof.upgrade.watch.observe", _fail)
    with pytest.raises(ValueError, match="a fault of ours"), Watch.over(*silent, every_s=0.1):
        time.sleep(0.5)


def test_who_sends_no_more_ends_the_roll(
    silent: tuple[TargetsStack, Mapping[str, Emission]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stackproof.isolation.delivery.numbered", _fail)
    stack, _ = silent
    with (
        pytest.raises(ValueError, match="a fault of ours"),
        Client() as client,
        sending(stack, client, stack.tenants, entry_point=EntryPoint.TARGETS),
    ):
        time.sleep(0.5)


def _environment(process: Path) -> bytes:
    """Return what a process was started with; nothing of one that is not ours, or has ended."""
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


@contextmanager
def _echo(word: bytes) -> Iterator[int]:
    """Answer every line with this word and the line, until the end."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve(client: socket.socket) -> None:
            with client, client.makefile("rb") as lines:
                for line in lines:
                    client.sendall(word + line)

        def accept() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


def _ask(client: socket.socket) -> bytes:
    client.sendall(b"?\n")
    return client.recv(100)


def test_a_service_that_is_closed_leaves_no_connection_open() -> None:
    """Whatever it is about to do. Warnings are errors, and a socket that is left warns."""
    for _ in range(20):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        proxy = ServiceProxy()
        with _echo(b"pod") as pod, ExitStack() as clients:
            proxy.lead(port, pod)
            for _ in range(10):
                clients.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            proxy.close()
    gc.collect()


def test_a_service_leads_new_connections_elsewhere_and_leaves_the_old() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    proxy = ServiceProxy()
    try:
        with _echo(b"old") as old, _echo(b"new") as new:
            proxy.lead(port, old)
            with socket.create_connection(("127.0.0.1", port), 5) as first:
                assert _ask(first) == b"old?\n"
                proxy.lead(port, new)
                with socket.create_connection(("127.0.0.1", port), 5) as second:
                    assert _ask(second) == b"new?\n"
                assert _ask(first) == b"old?\n"
                proxy.lead(port, None)
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port), 5)
                assert _ask(first) == b"old?\n"
                # Who has said all is told so, and gets the rest of the answer.
                first.shutdown(socket.SHUT_WR)
                first.settimeout(10)
                assert first.recv(1) == b""
    finally:
        proxy.close()
