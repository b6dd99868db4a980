"""What an outage of a minute leaves behind arrives: thousands of large lines and spans, counted.

At rates and for as long as others saw it fail: these take minutes (`make endurance`).
test_resilience.py sends as many bytes within seconds.
"""

from __future__ import annotations

import contextlib
import re
import signal as signals
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import pytest

from stackproof.backends import Client
from stackproof.beside import beside
from stackproof.errors import StackproofError
from stackproof.flux.deployment import Deployment
from stackproof.isolation.delivery import TEMPO_LOSS_S, arrived, numbered, sending
from stackproof.model import EntryPoint, Signal
from stackproof.otlp import synthetic
from stackproof.otlp.senders import ExportError, Sender
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import load_registry
from stackproof.stack.local import LocalStack
from stackproof.stack.process import ProgramProcess
from stackproof.twins import TWINS

pytestmark = [
    pytest.mark.endurance,
    pytest.mark.needs_restart,
    pytest.mark.xdist_group("endurance"),
    pytest.mark.timeout(1200),
]

TENANTS = load_registry(Checkout.find()).names
#: Who sends much; the others send a little of everything, and lose nothing either.
VICTIM = TENANTS[1]
#: Rates at which what was queued is sent on within the time of a test.
LIMITS: Mapping[str, Mapping[str, float]] = {
    "metrics": {"samplesPerSecond": 100_000},
    "logs": {"megabytesPerSecond": 4},
    "traces": {"bytesPerSecond": 15_000_000},
}
#: What Alloy keeps of a signal, in bytes (charts/open-webui-stack), and what a record has besides.
QUEUE, ATTRIBUTES = 64 * 2**20, 200
#: An exporter of OpenTelemetry sends so many records at once here.
TOGETHER = 30
#: How long it may take after the last was sent until all is there.
PATIENCE_S = 180.0


@dataclass(frozen=True)
class Outage:
    """What is sent, and for how long its backend is away meanwhile.

    Args:
        signal: What.
        backend: Which is away.
        size: Bytes of each record.
        per_s: Records a second.
        away_s: How long it is away.
        whole_s: How long is sent, from ten seconds before.
    """

    signal: Signal
    backend: str
    size: int
    per_s: int
    away_s: int
    whole_s: int

    @property
    def fills_the_queue(self) -> bool:
        """Whether more is left behind than Alloy keeps: then it refuses, and the sender knows."""
        return self.per_s * (self.size + ATTRIBUTES) * self.away_s > QUEUE

    def __str__(self) -> str:
        return f"{self.signal} of {self.size} bytes, {self.backend} away for {self.away_s} s"


OUTAGES = (
    Outage(Signal.LOGS, "loki", 3_000, 300, 30, 120),
    Outage(Signal.LOGS, "loki", 2_200, 300, 60, 95),
    Outage(Signal.LOGS, "loki", 2_200, 300, 95, 120),
    Outage(Signal.TRACES, "tempo", 10_000, 60, 60, 90),
    Outage(Signal.METRICS, "mimir", 1_500, 100, 60, 90),
)


@pytest.fixture(scope="module")
def running() -> Iterator[LocalStack]:
    deployment = Deployment.load(Checkout.find())
    with LocalStack(deployment.with_values(lgtm=[{"defaults": {"limits": LIMITS}}])) as stack:
        yield stack


@pytest.mark.parametrize("outage", OUTAGES, ids=str)
def test_what_an_outage_leaves_behind_arrives(
    outage: Outage,
    running: LocalStack,
    client: Client,
    record_property: Callable[[str, object], None],
) -> None:
    run = synthetic.new_run()
    others = [tenant for tenant in TENANTS if tenant != VICTIM]
    with (
        sending(running, client, others) as sources,
        running.sender(VICTIM, EntryPoint.ALLOY_GRPC, client) as opened,
    ):
        taken, refused, killed = _through(outage, running, opened, run)
        last = time.monotonic()
        # What comes later is not stuck behind it.
        number = max(taken) + 1
        one = numbered(outage.signal, VICTIM, _piece(outage, run, number), number)
        opened.send(outage.signal, one)
        taken[number] = time.monotonic()
    if outage.backend == "tempo":
        for acknowledged in (taken, *(source.taken[Signal.TRACES] for source in sources.values())):
            _forget(acknowledged, killed)
    pieces: dict[str, set[int]] = {}
    for number in taken:
        pieces.setdefault(_piece(outage, run, number), set()).add(number)
    for piece, numbers in pieces.items():
        _are_there(running, client, outage.signal, VICTIM, piece, numbers, last)
    took = time.monotonic() - last
    for source in sources.values():
        for signal in Signal:
            _are_there(
                running, client, signal, source.tenant, source.run, source.taken[signal], last
            )
    for name, value in (("acknowledged", len(taken)), ("refused", refused), ("took_s", took)):
        record_property(name, value)
    print(f"{outage}: {len(taken)} acknowledged, {refused} refused, all there after {took:.0f} s")
    # It was as much as it should be: nothing is proven by what was never sent.
    assert len(taken) + refused > 0.8 * outage.per_s * outage.whole_s
    assert (refused > 0) == outage.fills_the_queue


def _forget(taken: dict[int, float], killed: float) -> None:
    """Take away what a killed Tempo may lose: it had it in memory only (docs/resilience.md)."""
    for number in [one for one, at in taken.items() if killed - TEMPO_LOSS_S < at < killed + 0.1]:
        del taken[number]


def _piece(outage: Outage, run: str, number: int) -> str:
    """Return the run that a number belongs to: Tempo is asked for five hundred spans at a time."""
    return f"{number // 500:04x}{run[4:]}" if outage.signal is Signal.TRACES else run


def _through(
    outage: Outage, stack: LocalStack, opened: Sender, run: str
) -> tuple[dict[int, float], int, float]:
    """Send through an outage.

    Returns:
        Which numbers were acknowledged and when; how many were not; when the backend was killed.
    """
    taken: dict[int, float] = {}
    refused = number = 0
    began, began_ns = time.monotonic(), time.time_ns()
    away: bool | None = None
    left = 0.0
    while (now := time.monotonic() - began) < outage.whole_s:
        if away is None and now > min(10, outage.whole_s - outage.away_s):
            stack.process(outage.backend).signal(signals.SIGKILL)
            away, left = True, now
        if away and now > left + outage.away_s:
            stack.restart(outage.backend)
            away = False
        if number > now * outage.per_s:
            time.sleep(0.01)
            continue
        numbers = range(number + 1, number + 1 + TOGETHER)
        number += TOGETHER
        # Each has a moment of its own: a series has one sample in each millisecond.
        message, *more = (
            numbered(
                outage.signal,
                VICTIM,
                _piece(outage, run, one),
                one,
                began_ns + one * 10**9 // outage.per_s,
                outage.size,
            )
            for one in numbers
        )
        for other in more:
            message.MergeFrom(other)
        try:
            opened.send(outage.signal, message, timeout_s=30)
        except ExportError:
            refused += TOGETHER
        else:
            taken |= dict.fromkeys(numbers, time.monotonic())
    if away:
        stack.restart(outage.backend)
    return taken, refused, began + left


def _are_there(
    stack: LocalStack,
    client: Client,
    signal: Signal,
    tenant: str,
    run: str,
    taken: set[int] | Mapping[int, float],
    since: float,
) -> None:
    """Wait until each acknowledged number is there, once."""
    expected = Counter({(tenant, number): 1 for number in taken})
    while True:
        said = ""
        try:
            there = arrived(client, stack.reader(tenant), signal, run)
        except StackproofError as error:
            there, said = Counter(), f": {error}"
        lost = expected.keys() - there.keys()
        twice = [key for key, times in there.items() if times > 1]
        if not lost and not twice:
            return
        assert time.monotonic() < since + PATIENCE_S, (
            f"{tenant}'s {signal}: {len(lost)} of {len(expected)} are lost, {len(twice)} are there "
            f"twice{said}"
        )
        time.sleep(2)


#: As it was: Tempo looks every 15 s whether it answers itself within one.
WARY = next(twin for twin in TWINS if twin.name == "tempo-finds-itself-dead")
#: Of each tenth of a second Tempo runs this share, for so long, while so many ask at once.
RUNS, THROTTLED_S, ASKING = 0.15, 45.0, 24


@pytest.mark.parametrize("wary", [True, False], ids=["wary", "as-deployed"])
def test_a_tempo_that_is_short_of_processor_breaks_nothing_off(wary: bool) -> None:
    right = Deployment.load(Checkout.find())
    with (
        WARY.deployment(Checkout.find()) if wary else nullcontext(right) as deployment,
        LocalStack(deployment) as stack,
        Client(connections=ASKING, timeout_s=60) as client,
    ):
        with sending(stack, client, [VICTIM], pause_s=0.005) as sources:
            time.sleep(8)
        ended = threading.Event()

        def ask() -> None:
            while not ended.is_set():
                with contextlib.suppress(StackproofError):
                    arrived(client, stack.reader(VICTIM), Signal.TRACES, sources[VICTIM].run)

        throttle = partial(_throttle, stack.process("tempo"), ended)
        with beside([throttle, *[ask] * ASKING], ended.set):
            time.sleep(THROTTLED_S)
        log = (stack.directory / "logs" / "tempo.log").read_text()
        removed = re.findall(r"removing \S+ failing healthcheck", log)
    assert bool(removed) == wary, removed


def _throttle(process: ProgramProcess, ended: threading.Event) -> None:
    try:
        while not ended.is_set():
            process.signal(signals.SIGSTOP)
            time.sleep(0.1 * (1 - RUNS))
            process.signal(signals.SIGCONT)
            time.sleep(0.1 * RUNS)
    finally:
        process.signal(signals.SIGCONT)
