"""How much a load needs: on one node, as `charts/lgtm` runs it, and spread over many.

All figures are rules of thumb that Grafana Labs publishes, multiplied out; `Need.sources` says
where. They are a first guess and say so themselves: measure, then correct. Where nothing is
published (Loki in one process; how well logs and traces compress) this says `ASSUMPTION`, and gives
a range.

Units: cores, gigabytes (10^9 bytes, as the sources use them), days, events a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

from stackproof.errors import StackproofError
from stackproof.options import MOST
from stackproof.wording import counted

MIMIR = "https://grafana.com/docs/mimir/latest/manage/run-production-environment/planning-capacity/"
LOKI = "https://grafana.com/docs/loki/latest/setup/size/"
LOKI_MODES = "https://grafana.com/docs/loki/latest/get-started/deployment-modes/"
TEMPO = "https://grafana.com/docs/tempo/latest/setup/size/"
ASSUMPTION = "an assumption of ours: nothing is published"

LOKI_ONE_PROCESS_GB_PER_DAY = 20.0
"""Up to which Loki's own documentation recommends one process (`LOKI_MODES`)."""
LOKI_SMALLEST_TIER_GB_PER_DAY = 3000.0
"""The load for which the smallest published sizing of a Loki cluster is made (`LOKI`)."""
BYTES_PER_SAMPLE = 2.0
"""Of compacted blocks, index included (`MIMIR`, store-gateway)."""
HEADROOM = 1.5
"""`MIMIR`: "run Grafana Mimir with 50% extra capacity for memory and disk"; used for all three."""
REPLICATION = 3
"""Copies of each series, stream and trace in a distributed backend; one process keeps one."""
STORED_SHARE = (0.1, 0.5)
"""Bytes on disk per byte of logs or traces received: the range that is assumed."""
_DAY = 86_400
#: What a load cannot have less of; of all else it may have none.
_LEAST = {"tenants": 1.0, "interval_s": 1e-9}


@dataclass(frozen=True, slots=True)
class Load:
    """What all tenants send together, and what is asked.

    Args:
        tenants: How many.
        series: Active series of one tenant.
        logs_gb_per_day: Logs of one tenant.
        traces_gb_per_day: Traces of one tenant.
        interval_s: Time between two samples of a series.
        queries_per_s: All queries of Grafana together.
        retention_days: How long everything is kept.
    """

    tenants: int
    series: float = 10_000
    logs_gb_per_day: float = 1.0
    traces_gb_per_day: float = 1.0
    interval_s: float = 10.0
    queries_per_s: float = 2.0
    retention_days: float = 31.0

    def __post_init__(self) -> None:
        for one in fields(self):
            value, least = getattr(self, one.name), _LEAST.get(one.name, 0.0)
            if not least <= value <= MOST:  # nan is neither
                raise StackproofError(
                    f"{one.name} must be a number from {least:g} to {MOST:g}, is {value}"
                )

    @property
    def all_series(self) -> float:
        """Active series of all tenants."""
        return self.tenants * self.series

    @property
    def samples_per_s(self) -> float:
        """Samples of all tenants."""
        return self.all_series / self.interval_s

    @property
    def logs(self) -> float:
        """Logs of all tenants [GB a day]."""
        return self.tenants * self.logs_gb_per_day

    @property
    def traces(self) -> float:
        """Traces of all tenants [GB a day]."""
        return self.tenants * self.traces_gb_per_day

    @property
    def traces_mb_per_s(self) -> float:
        """Traces of all tenants [MB/s]."""
        return self.traces * 1000 / _DAY


@dataclass(frozen=True, slots=True)
class Need:
    """What a component needs, all its replicas together: of each at least, and at most."""

    backend: str
    component: str
    replicas: int
    cores: tuple[float, float]
    memory_gb: tuple[float, float]
    disk_gb: tuple[float, float]
    sources: tuple[str, ...]


def _need(
    backend: str,
    component: str,
    *figures: float | tuple[float, float],
    sources: tuple[str, ...],
    replicas: int = 1,
) -> Need:
    """Return a need of cores, memory and disk [GB]: each exactly, or at least and at most."""
    cores, memory, disk = (x if isinstance(x, tuple) else (x, x) for x in figures)
    return Need(backend, component, replicas, cores, memory, disk, sources)


def one_node(load: Load) -> tuple[Need, ...]:
    """Return what Mimir, Loki and Tempo need as one process each, every one with all its data."""
    return _mimir_process(load), _loki_process(load), _tempo_process(load)


def _mimir_process(load: Load) -> Need:
    """Sum the components, as the source says for the monolithic mode; one copy of each series."""
    ingest = load.samples_per_s / 25_000
    series = load.all_series / 300_000
    asked = load.queries_per_s
    compactor = load.all_series / 20e6  # scaled down: the source knows whole compactors only
    cores = ingest + series + asked * (1 / 250 + 1 / 500 + 1 / 10 + 1 / 10) + compactor
    memory = ingest + 2.5 * series + asked * (1 / 250 + 0.1 / 500 + 1 / 10 + 1 / 10) + 4 * compactor
    blocks = load.samples_per_s * BYTES_PER_SAMPLE * load.retention_days * _DAY / 1e9
    disk = blocks + 5 * series + 300 * compactor
    return _need("mimir", "all", cores, memory * HEADROOM, disk * HEADROOM, sources=(MIMIR,))


def _loki_process(load: Load) -> Need:
    """Scale the smallest published cluster down to the load and to one copy: a rough range."""
    share = load.logs / LOKI_SMALLEST_TIER_GB_PER_DAY
    cores = sum(part.replicas * part.cores for part in _LOKI_TIER) * share
    memory = sum(part.replicas * part.memory_gb for part in _LOKI_TIER) * share
    return _need(
        "loki",
        "all",
        (cores / REPLICATION, cores * HEADROOM),
        (memory / REPLICATION, memory * HEADROOM),
        _stored(load.logs, load),
        sources=(LOKI_MODES, LOKI, ASSUMPTION),
    )


def _tempo_process(load: Load) -> Need:
    rate = load.traces_mb_per_s
    # Distributor, ingester, querier, compactor: MB/s of one replica (best, worst), cores, GB (…).
    cores = (rate * (2 / 10 + 2.5 / 5 + 1 / 2 + 1 / 5), rate * (2 / 10 + 2.5 / 3 + 2 / 1 + 1 / 3))
    memory = (rate * (2 / 10 + 4 / 5 + 4 / 2 + 4 / 5), rate * (2 / 10 + 20 / 3 + 20 / 1 + 20 / 3))
    disk = _stored(load.traces, load)
    return _need("tempo", "all", cores, memory, disk, sources=(TEMPO, ASSUMPTION))


def _stored(gb_per_day: float, load: Load) -> tuple[float, float]:
    low, high = (gb_per_day * load.retention_days * share for share in STORED_SHARE)
    return low, high * HEADROOM


@dataclass(frozen=True, slots=True)
class _Part:
    """A row of a published table: what one replica takes."""

    component: str
    replicas: int
    cores: float
    memory_gb: float


#: `LOKI`, "Less than 100TB/month (3TB/day)".
_LOKI_TIER = (
    _Part("ingester", 6, 2, 4),
    _Part("distributor", 4, 2, 0.5),
    _Part("index-gateway", 4, 0.5, 2),
    _Part("querier", 10, 1, 1),
    _Part("query-frontend", 2, 1, 2),
    _Part("query-scheduler", 2, 1, 0.5),
    _Part("compactor", 1, 2, 10),
)


def distributed(load: Load) -> tuple[Need, ...]:
    """Return what the official distributed charts need, component by component."""
    return (*_mimir_cluster(load), *_loki_cluster(load), *_tempo_cluster(load))


def _mimir_cluster(load: Load) -> Iterable[Need]:
    in_memory = load.all_series * REPLICATION
    asked = load.queries_per_s

    def need(
        component: str, units: float, cores: float, memory: float, disk: float = 0, least: int = 2
    ) -> Need:
        replicas = max(least, math.ceil(units))
        figures = (units * cores, units * memory * HEADROOM, units * disk * HEADROOM)
        return _need("mimir", component, *figures, sources=(MIMIR,), replicas=replicas)

    yield need("distributor", load.samples_per_s / 25_000, 1, 1)
    # An ingester of 1.5 million series: five of the source's units.
    yield need("ingester", in_memory / 1_500_000, 5, 12.5, 25, least=REPLICATION)
    yield need("query-frontend", asked / 250, 1, 1)
    yield need("query-scheduler", asked / 500, 1, 0.1)
    yield need("querier", asked / 10, 1, 1)
    # Of its disk, the source says what it takes for a million series, however much is asked.
    index = load.all_series / 1e6 * 13 * HEADROOM
    gateways = need("store-gateway", asked / 10, 1, 1, least=REPLICATION)
    yield replace(gateways, disk_gb=(index, index))
    yield need("compactor", max(1.0, load.all_series / 20e6), 1, 4, 300, least=1)


def _loki_cluster(load: Load) -> Iterable[Need]:
    """Return the smallest published cluster, as often as the load fills it."""
    times = max(1.0, load.logs / LOKI_SMALLEST_TIER_GB_PER_DAY)
    for part in _LOKI_TIER:
        replicas = part.replicas if part.component == "compactor" else part.replicas * times
        count = math.ceil(replicas)
        figures = (count * part.cores, count * part.memory_gb, 0.0)
        yield _need("loki", part.component, *figures, sources=(LOKI,), replicas=count)


def _tempo_cluster(load: Load) -> Iterable[Need]:
    rate = load.traces_mb_per_s
    rows: Mapping[str, tuple[float, int, float, tuple[float, float]]] = {
        # component: MB/s that one replica takes at worst, at least, cores, GB of one replica
        "distributor": (10, 2, 2, (2, 2)),
        "ingester": (3, REPLICATION, 2.5, (4, 20)),
        "querier": (1, 2, 1, (4, 20)),
        "query-frontend": (math.inf, 2, 1, (4, 20)),
        "compactor": (3, 1, 1, (4, 20)),
    }
    for component, (takes, least, cores, memory) in rows.items():
        count = max(least, math.ceil(rate / takes))
        figures = (count * cores, (count * memory[0], count * memory[1]), 0.0)
        yield _need("tempo", component, *figures, sources=(TEMPO,), replicas=count)


@dataclass(frozen=True, slots=True)
class Given:
    """What a process has: the limits of its container, and its volume [GB]."""

    cores: float
    memory_gb: float
    disk_gb: float


def shortages(need: Need, given: Given) -> tuple[str, ...]:
    """Say what a process lacks for certain, and what it may lack; nothing where it has enough."""
    found = []
    for what, wanted, there, unit in (
        ("cores", need.cores, given.cores, ""),
        ("memory", need.memory_gb, given.memory_gb, " GB"),
        ("disk", need.disk_gb, given.disk_gb, " GB"),
    ):
        low, high = wanted
        if there < low:
            found.append(f"too little {what}: {there:.3g}{unit}, it needs {low:.3g}{unit} or more")
        elif there < high:
            found.append(f"perhaps too little {what}: {there:.3g}{unit}, up to {high:.3g}{unit}")
    return tuple(found)


def too_big_for_one_node(load: Load, cores: float, memory_gb: float) -> tuple[str, ...]:
    """Say why a load does not fit one node with three processes; nothing where it may.

    Args:
        load: What is sent and asked.
        cores: Of the node, for the three alone.
        memory_gb: Of the node, for the three alone.
    """
    needs = one_node(load)
    found = []
    low_cores = sum(need.cores[0] for need in needs)
    low_memory = sum(need.memory_gb[0] for need in needs)
    if low_cores > cores:
        found.append(
            f"they need {counted(low_cores, 'core', figure='.3g')} together, "
            f"the node gives {cores:.3g}"
        )
    if low_memory > memory_gb:
        found.append(f"they need {low_memory:.3g} GB of memory, the node gives {memory_gb:.3g}")
    if load.logs > LOKI_ONE_PROCESS_GB_PER_DAY:
        found.append(
            f"{load.logs:.3g} GB of logs a day: Loki's documentation recommends one process up to "
            f"about {LOKI_ONE_PROCESS_GB_PER_DAY:.0f}"
        )
    return tuple(found)


def granted(
    *,
    series: float = 0.0,
    samples_per_s: float = 0.0,
    logs_bytes_per_s: float = 0.0,
    traces_bytes_per_s: float = 0.0,
    retention_days: float = 0.0,
    queries_per_s: float = 0.0,
) -> Load:
    """Return the load of one tenant that sends all that its limits allow, day and night."""
    return Load(
        tenants=1,
        series=series,
        logs_gb_per_day=logs_bytes_per_s * _DAY / 1e9,
        traces_gb_per_day=traces_bytes_per_s * _DAY / 1e9,
        interval_s=series / samples_per_s if series and samples_per_s else 10.0,
        queries_per_s=queries_per_s,
        retention_days=retention_days,
    )


def together(loads: Iterable[Load]) -> tuple[Need, ...]:
    """Return what `one_node` says of several tenants with loads of their own, in the same order.

    The model is linear, so the needs of single tenants add up.
    """
    return tuple(map(_sum, zip(*map(one_node, loads), strict=True)))


def _sum(needs: tuple[Need, ...]) -> Need:
    def total(figure: str) -> tuple[float, float]:
        low, high = zip(*(getattr(need, figure) for need in needs), strict=True)
        return sum(low), sum(high)

    return replace(
        needs[0], cores=total("cores"), memory_gb=total("memory_gb"), disk_gb=total("disk_gb")
    )
