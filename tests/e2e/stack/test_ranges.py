"""All that is kept can be read: each query API is asked for the whole of the longest retention."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import yaml

from stackproof.backends import PROVABLE, Client, Question, ReadApi
from stackproof.checks import chain, ranges
from stackproof.helm.manifests import amount, at
from stackproof.model import Access, Backend
from stackproof.otlp import synthetic
from stackproof.repo.tenants import parse_duration
from stackproof.stack.base import Stack
from stackproof.stack.local import LocalStack

HOUR_NS = 3600 * 10**9
#: `defaults.retention` of charts/lgtm.
KEPT_H = 744
#: TraceQL metrics are made of the generator's local blocks, which are kept for a day.
BLOCKS_H = 24
#: A day: with less, Prometheus' API refuses the number of points, not the range.
LONG_STEP = "86400"
#: Tempo since 2.10 widens a range to whole steps before it measures it.
SHORT_STEP = "60"


def _step(api: ReadApi) -> str:
    return SHORT_STEP if api.backend is Backend.TEMPO else LONG_STEP


APIS = [
    replace(api, params=tuple((k, _step(api) if k == "step" else v) for k, v in api.params))
    for api in PROVABLE
    if any(key == "start" for key, _ in api.params) and not api.stream
]


def _asked(client: Client, api: ReadApi, access: Access, hours: int) -> int | None:
    now = time.time_ns()
    question = Question(synthetic.new_run(), now - hours * HOUR_NS, now)
    return client.ask(api, access, question).status


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.id)
def test_a_range_of_the_whole_retention_is_answered(
    api: ReadApi, stack: Stack, client: Client
) -> None:
    one = stack.reader(stack.tenants[0])
    everybody = stack.admin_reader(stack.tenants)
    hours = BLOCKS_H if api.id.startswith("tempo.metrics") else KEPT_H
    for access in (one, everybody) if api.federated else (one,):
        assert _asked(client, api, access, hours) == 200, access.name


def test_there_is_a_limit(stack: Stack, client: Client) -> None:
    """Else the test above would pass whatever is asked: Tempo refuses more than is kept."""
    (search,) = (api for api in APIS if api.id == "tempo.search-traceql")
    assert _asked(client, search, stack.reader(stack.tenants[0]), KEPT_H + 2) == 400


# --- what the checks take for granted where the charts say nothing ---


def _defaults(stack: LocalStack, client: Client, backend: str) -> Mapping[str, Any]:
    path = "status/config" if backend == "tempo" else "config"
    root = re.sub(r"(?<=\d)/.*", "", stack.backend_url(Backend(backend)))
    answer = client.pool.request("GET", f"{root}/{path}?mode=defaults", timeout=10)
    assert answer.status == 200, answer.data[:300]
    # Tempo names the request in a document of its own.
    found: Mapping[str, Any] = list(yaml.load_all(answer.data, yaml.CSafeLoader))[-1]
    return found


@pytest.mark.parametrize("backend", ["mimir", "loki", "tempo"])
def test_defaults_of_programs(backend: str, stack: Stack, client: Client) -> None:
    if not isinstance(stack, LocalStack):
        pytest.skip("the backends' own ports are reached on this machine only")
    defaults = _defaults(stack, client, backend)
    sizes = {path: size for (of, path), size in chain.DEFAULTS.items() if of == backend}
    for path, size in sizes.items():
        if path.startswith("distributor.receivers."):
            continue  # a collector's, whose defaults Tempo does not tell
        found = str(at(defaults, path))
        assert amount(re.sub(r"([KMG])B$", r"\1i", found)) == size, path
    for path, _, duration in ranges.RANGES[backend]:
        found = re.sub(r"(?<=[hm])0s$|(?<=h)0m0s$", "", str(at(defaults, path)))
        wanted = duration if duration == "0s" else parse_duration(duration)
        assert (found if wanted == "0s" else _duration(found)) == wanted, path


def _duration(text: str) -> object:
    """Loki writes 721h as 30d1h."""
    units = {"w": 168, "d": 24, "h": 1}
    parts = re.findall(r"(\d+)([wdh])", text)
    return parse_duration(f"{sum(int(number) * units[unit] for number, unit in parts)}h")
