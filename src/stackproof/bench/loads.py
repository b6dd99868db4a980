"""What a stack on this machine takes, what the capacity model says of it, and a noisy neighbour."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

import urllib3

from stackproof.backends import Client, capacity
from stackproof.flux.deployment import Deployment
from stackproof.model import Backend, Signal
from stackproof.repo.checkout import Checkout
from stackproof.stack.local import LocalStack

from . import workload
from .registry import Figures, benchmark, quantile
from .workload import Mix, Sent

_TENANTS = 50
_PROBES = 2
_STEP_S = 12.0
_FIRST_CHATS, _MOST_STEPS = 0.5, 11
#: A step is sustained if nothing was refused or dropped, senders kept their times, and telemetry
#: was visible in time.
_LATE_S, _VISIBLE_MS = 2.0, 1000.0

#: What stops a step is the machine: a tenant's own limits are far away.
_FAR = {
    "metrics": {"activeSeries": 10**6, "samplesPerSecond": 10**6, "samplesBurst": 10**6},
    "logs": {"megabytesPerSecond": 100, "megabytesBurst": 100},
    "traces": {"bytesPerSecond": 10**8, "burstBytes": 10**8, "liveTraces": 10**5},
}

_DROPPED = re.compile(r"^\w+_discarded_(?:samples|spans)_total\{.*\} (\S+)$", re.MULTILINE)

_QUIET, _ROUNDS, _ROUND_S = 10, 3, 8.0


def _p95(found: Mapping[Signal, list[float]]) -> dict[Signal, float]:
    return {signal: quantile(times, 0.95) for signal, times in found.items()}


@benchmark
def limits(checkout: Checkout) -> Figures:
    """Let 50 tenants' applications chat, twice as much every step, until the stack falls behind."""
    deployed = Deployment.load(checkout).with_synthetic(_TENANTS)
    deployed = deployed.with_values(lgtm=[{"defaults": {"limits": _FAR}}])
    figures: Figures = {}
    with LocalStack(deployed, alloys=False) as stack, Client(connections=32) as client:
        busy, probed = stack.tenants[_PROBES:][:_TENANTS], stack.tenants[:_PROBES]
        chats = _FIRST_CHATS
        for _ in range(_MOST_STEPS):
            before, own, dropped = _cpu(stack), time.process_time(), _dropped(stack)
            began = time.monotonic()
            with workload.running(stack, client, busy, Mix(chats_per_s=chats)) as sent:
                visible = _p95(workload.probe(stack, client, probed, _STEP_S))
            wall = time.monotonic() - began
            cores = {name: (used - before[name]) / wall for name, used in _cpu(stack).items()}
            # One interpreter sends and looks: near 1 it is the limit, not the stack.
            cores["sender"] = (time.process_time() - own) / wall
            dropped = _dropped(stack) - dropped
            late = sent.behind_s > _LATE_S or max(visible.values()) > _VISIBLE_MS
            if sent.refused or dropped or late:
                figures |= _fell_behind(chats, sent, visible, cores, dropped)
                break
            figures |= _sustained(stack, chats, sent, visible, cores)
            chats *= 2
    return figures


def _cpu(stack: LocalStack) -> dict[str, float]:
    return {name: stack.process(name).cpu_s() for name in stack.components}


def _sustained(
    stack: LocalStack,
    chats: float,
    sent: Sent,
    visible: Mapping[Signal, float],
    cores: Mapping[str, float],
) -> Figures:
    figures = {
        "load_tenants": float(_TENANTS),
        "load_chats_per_s": chats * _TENANTS,
        "load_spans_per_s": round(sent.spans / sent.seconds),
        "load_lines_per_s": round(sent.lines / sent.seconds),
        "load_samples_per_s": round(sent.samples / sent.seconds),
        "load_series": float(sent.series),
        "load_traces_gb_per_day": _gb_per_day(sent, Signal.TRACES),
        "load_logs_gb_per_day": _gb_per_day(sent, Signal.LOGS),
        **{f"load_visible_{signal}_p95_ms": round(ms, 1) for signal, ms in visible.items()},
        **{f"load_cores_{name}": round(used, 3) for name, used in cores.items()},
        **{f"load_memory_{n}_mb": round(b / 1e6) for n, b in stack.memory().items()},
    }
    return figures | _against_the_model(sent, cores, stack.memory())


def _dropped(stack: LocalStack) -> float:
    """Return how much the backends took and did not keep so far, by their own counters."""
    total = 0.0
    for backend in Backend:
        url = f"{stack.backend_url(backend).removesuffix('/prometheus')}/metrics"
        text = urllib3.request("GET", url, timeout=10, retries=False).data.decode()
        total += sum(map(float, _DROPPED.findall(text)))
    return total


def _fell_behind(
    chats: float,
    sent: Sent,
    visible: Mapping[Signal, float],
    cores: Mapping[str, float],
    dropped: float,
) -> Figures:
    """Return the first step that was too much, and by what it was."""
    return {
        "load_too_much_chats_per_s": chats * _TENANTS,
        "load_too_much_refused": float(sum(sent.refused.values())),
        "load_too_much_dropped": dropped,
        "load_too_much_behind_s": round(sent.behind_s, 2),
        **{f"load_too_much_visible_{s}_p95_ms": round(ms, 1) for s, ms in visible.items()},
        **{f"load_too_much_cores_{name}": round(used, 3) for name, used in cores.items()},
    }


def _gb_per_day(sent: Sent, signal: Signal) -> float:
    return round(sent.bytes[signal] / sent.seconds * 86_400 / 1e9, 2)


def _against_the_model(
    sent: Sent, cores: Mapping[str, float], memory: Mapping[str, int]
) -> Figures:
    """Compare what each backend used with what `capacity` says such a load needs.

    The model's memory has half as much again as headroom, and its disk is for a month: only cores
    and memory are compared. A ratio below 1 means that the model asks for more than was used; what
    the probes ask is in the measured part only.
    """
    model = capacity.Load(
        tenants=_TENANTS,
        series=sent.series / _TENANTS,
        logs_gb_per_day=_gb_per_day(sent, Signal.LOGS) / _TENANTS,
        traces_gb_per_day=_gb_per_day(sent, Signal.TRACES) / _TENANTS,
        interval_s=workload.METRICS_S,
        queries_per_s=0,
    )
    figures = {}
    for need in capacity.one_node(model):
        low, high = need.cores
        figures[f"load_model_cores_{need.backend}_low"] = round(low, 3)
        figures[f"load_model_cores_{need.backend}_high"] = round(high, 3)
        figures[f"load_cores_{need.backend}_ratio_to_model"] = round(cores[need.backend] / high, 2)
        figures[f"load_memory_{need.backend}_ratio_to_model"] = round(
            memory.get(need.backend, 0) / 1e9 / need.memory_gb[1], 2
        )
    return figures


@benchmark
def noisy_neighbour(checkout: Checkout) -> Figures:
    """Measure how soon others see their telemetry, with and without one that sends all it can."""
    deployed = Deployment.load(checkout).with_synthetic(_QUIET)
    alone: dict[Signal, list[float]] = {signal: [] for signal in Signal}
    beside: dict[Signal, list[float]] = {signal: [] for signal in Signal}
    refused = requests = 0
    flooded = 0.0
    with LocalStack(deployed, alloys=False) as stack, Client(connections=32) as client:
        noisy, *others = stack.tenants
        quiet, probed = others[_PROBES:][:_QUIET], others[:_PROBES]
        with workload.running(stack, client, quiet, Mix()):
            for _ in range(_ROUNDS):  # in turns, so that both meet the same machine
                for into in (alone, beside):
                    if into is alone:
                        found = workload.probe(stack, client, probed, _ROUND_S)
                    else:
                        with workload.flooding(stack, client, noisy) as sent:
                            found = workload.probe(stack, client, probed, _ROUND_S)
                        refused += sum(sent.refused.values())
                        requests += sent.requests
                        flooded += sum(sent.bytes.values()) / sent.seconds / 1e6
                    for signal, times in found.items():
                        into[signal] += times
    figures: Figures = {
        "noisy_requests": float(requests),
        "noisy_refused_ratio": round(refused / max(requests, 1), 3),
        "noisy_taken_mb_per_s": round(flooded / _ROUNDS, 2),
    }
    with_noise, without = _p95(beside), _p95(alone)
    for signal in Signal:
        figures[f"noisy_others_{signal}_p95_without_ms"] = round(without[signal], 1)
        figures[f"noisy_others_{signal}_p95_with_ms"] = round(with_noise[signal], 1)
        figures[f"noisy_others_{signal}_p95_ratio"] = round(with_noise[signal] / without[signal], 2)
    return figures
