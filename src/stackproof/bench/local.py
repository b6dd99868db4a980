"""The local stack with the deployment's own tenants: start, verdict, and what the gateway costs."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial

from stackproof import isolation
from stackproof.backends import ESSENTIAL, Client
from stackproof.beside import beside
from stackproof.flux.deployment import Deployment
from stackproof.isolation import question
from stackproof.model import TENANT_HEADER, Access, Backend, EntryPoint, Signal
from stackproof.otlp import synthetic
from stackproof.repo.checkout import Checkout
from stackproof.stack.local import LocalStack
from stackproof.stack.pod import Pod

from .registry import Figures, benchmark, quantile
from .scale import latencies_of

_STARTS = 3
_ROUNDS = 5
_ASKED = 300  # requests each way


class _TimedStack(LocalStack):
    """A local stack that notes when each of its programs was ready."""

    ready_s: dict[str, float]

    def _wait_until_ready(self, starting: Iterable[Pod]) -> None:
        began = time.monotonic()
        self.ready_s = {}

        def wait(pod: Pod) -> None:
            super(_TimedStack, self)._wait_until_ready([pod])
            self.ready_s[pod.program] = time.monotonic() - began

        with beside([partial(wait, pod) for pod in starting], lambda: None):
            pass  # each ends by itself


@benchmark
def stack(checkout: Checkout) -> Figures:
    """Start the local stack a few times, then prove three tenants' isolation on it."""
    started: list[float] = []
    ready: dict[str, list[float]] = defaultdict(list)
    figures: Figures = {}
    for start in range(_STARTS):
        with _TimedStack(Deployment.load(checkout)) as running:
            started.append(running.started_s)
            for program, seconds in running.ready_s.items():
                ready[program].append(seconds)
            if start == _STARTS - 1:
                figures = _proven([isolation.prove(running) for _ in range(_ROUNDS)])
    figures |= {f"start_{name}_s": round(statistics.median(s), 3) for name, s in ready.items()}
    figures["start_stack_s"] = round(statistics.median(started), 3)
    figures["start_to_verdict_3_tenants_s"] = round(
        figures["start_stack_s"] + figures["verdict_3_tenants_s"], 2
    )
    return figures


def _proven(proofs: Sequence[isolation.Proof]) -> Figures:
    """Return the time to the verdict, and from an acknowledged export to being visible."""
    figures = {"verdict_3_tenants_s": round(statistics.median(p.duration_s for p in proofs), 2)}
    for signal, latencies in latencies_of(proofs).items():
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            figures[f"visible_{signal}_{name}_ms"] = round(quantile(latencies, share), 1)
    return figures


@benchmark
def gateway(checkout: Checkout) -> Figures:
    """Ask and send the same through the gateway and past it, in turns: what the gateway adds."""
    with LocalStack(Deployment.load(checkout), alloys=False) as running, Client() as client:
        tenant = running.tenants[0]
        ways = {
            "gateway": running.reader(tenant),
            "direct": Access(
                tenant,
                {backend: running.backend_url(backend) for backend in Backend},
                headers={TENANT_HEADER: tenant},
            ),
        }
        isolation.prove(running, apis=ESSENTIAL, entry_point=EntryPoint.GATEWAY)
        api = next(api for api in ESSENTIAL if api.backend is Backend.MIMIR)
        emission = synthetic.new_emission(tenant, synthetic.new_run())
        with running.sender(tenant, EntryPoint.GATEWAY, client) as out:
            out.send(Signal.METRICS, synthetic.make(emission, Signal.METRICS))
        took: dict[str, list[float]] = {name: [] for name in ways}
        process = running.process("gateway")
        before = process.cpu_s()
        for _ in range(_ASKED):
            for name, access in ways.items():
                began = time.perf_counter()
                client.ask(api, access, question(emission))
                took[name].append((time.perf_counter() - began) * 1000)
        used_ms = (process.cpu_s() - before) * 1000
    middle = {name: statistics.median(times) for name, times in took.items()}
    return {
        "read_gateway_p50_ms": round(middle["gateway"], 2),
        "read_direct_p50_ms": round(middle["direct"], 2),
        "read_gateway_p95_ms": round(quantile(took["gateway"], 0.95), 2),
        "read_direct_p95_ms": round(quantile(took["direct"], 0.95), 2),
        "read_ratio_gateway_to_direct": round(middle["gateway"] / middle["direct"], 2),
        "gateway_cpu_per_request_ms": round(used_ms / _ASKED, 3),
    }
