"""Limits, sizes, memory and retention fit each other, whatever the values.

What a tenant may send is what it will send one day: its limits are there so that nobody's telemetry
fills the disk or takes the memory that all share. The figures come from
`stackproof.backends.capacity`; what a program keeps in memory beside its data are facts about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stackproof.backends import capacity
from stackproof.helm.manifests import (
    COMPONENT,
    Manifest,
    Release,
    amount,
    at,
    claims,
    containers,
    pod_spec,
)
from stackproof.model import STACK_TENANT
from stackproof.repo.tenants import parse_duration
from stackproof.wording import counted

from . import Rules, lgtm
from .lgtm import BACKENDS

SIZES: Rules[Release] = Rules()

_MIB = 2.0**20
_DAY_S = 86_400.0
#: What a tenant has at the least: an application as `stackproof capacity` assumes it.
_USUAL = capacity.Load(tenants=1)
#: What each takes before anybody sends: resident memory after one proof of three tenants [GB].
_IDLE_GB = {"mimir": 0.17, "loki": 0.22, "tempo": 0.25}


def _running(release: Release) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each backend that runs here, with its configuration."""
    for backend in BACKENDS:
        if release.find("StatefulSet", backend):
            yield backend, lgtm.config(release, backend)


def _granted(backend: str, limits: Mapping[str, Any], queries_per_s: float = 0.0) -> capacity.Load:
    """Return what a tenant sends to one backend at its limits."""
    if backend == "mimir":
        return capacity.granted(
            series=float(limits["max_global_series_per_user"]),
            samples_per_s=float(limits["ingestion_rate"]),
            retention_days=_days(limits["compactor_blocks_retention_period"]),
            queries_per_s=queries_per_s,
        )
    if backend == "loki":
        return capacity.granted(
            logs_bytes_per_s=float(limits["ingestion_rate_mb"]) * _MIB,
            retention_days=_days(limits["retention_period"]),
        )
    return capacity.granted(
        traces_bytes_per_s=float(at(limits, "ingestion.rate_limit_bytes")),
        retention_days=_days(at(limits, "compaction.block_retention")),
    )


def _hours(local_blocks: Mapping[str, Any]) -> float:
    """Return how long local blocks are kept: by default an hour."""
    kept = str(local_blocks.get("complete_block_timeout") or "1h")
    return parse_duration(kept).total_seconds() / 3600


def _days(duration: object) -> float:
    return parse_duration(str(duration)).total_seconds() / _DAY_S


def _at_once(backend: str, limits: Mapping[str, Any]) -> float:
    """Return what a tenant may send at once, all of which is in memory for a moment [bytes]."""
    if backend == "loki":
        return float(limits["ingestion_burst_size_mb"]) * _MIB
    return float(at(limits, "ingestion.burst_size_bytes") or 0)


@SIZES.register
def tenants_at_their_limits_fit(release: Release) -> Iterator[str]:
    """Each backend has the disk, the memory and the cores for all tenants at their limits at once.

    Disk as the model says at most: a tenant chooses what it sends, and noise is hard to compress.
    Memory and cores as it says at least, caches and bursts on top.
    """
    for backend, config in _running(release):
        limits = lgtm.overrides(release, backend)
        if not limits:
            continue
        asked = _USUAL.queries_per_s / len(limits)
        loads = [_granted(backend, each, asked) for each in limits.values()]
        if backend == "tempo":  # its generator keeps a copy of the last day
            copy = _hours(at(config, "metrics_generator.processor.local_blocks") or {}) / 24
            loads = [replace(one, retention_days=one.retention_days + copy) for one in loads]
        need = capacity.together(loads)[BACKENDS.index(backend)]
        bursts = sum(_at_once(backend, each) for each in limits.values())
        caches = sum(cache.size(config) for cache in CACHES if cache.is_of(backend))
        beside = _IDLE_GB[backend] + (bursts + caches) / 1e9
        has = _given(release.get("StatefulSet", backend))
        rate = sum(load.samples_per_s for load in loads)
        sent = {
            "mimir": f"{sum(load.series for load in loads):,.0f} series, "
            + counted(rate, "sample/s", "samples/s", ",.0f"),
            "loki": f"{sum(load.logs for load in loads):.3g} GB of logs a day",
            "tempo": f"{sum(load.traces for load in loads):.3g} GB of traces a day",
        }
        kept = counted(max(load.retention_days for load in loads), "day", figure=".3g")
        who = f"{backend}: {counted(len(limits), 'tenant')} at the limits ({sent[backend]}, "
        who += f"kept up to {kept})"
        for what, needed, there, unit in (
            ("disk", need.disk_gb[1], has.disk_gb, " GB"),
            ("memory", need.memory_gb[0] + beside, has.memory_gb, " GB"),
            ("cores", need.cores[0], has.cores, ""),
        ):
            if there < needed:
                yield f"{who} need {what} of {needed:.3g}{unit}, it has {there:.3g}{unit}"


def _given(workload: Manifest) -> capacity.Given:
    limits = containers(workload)[0]["resources"]["limits"]
    claim = workload["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]
    return capacity.Given(
        amount(limits["cpu"]), amount(limits["memory"]) / 1e9, amount(claim["storage"]) / 1e9
    )


@SIZES.register
def limits_let_an_application_through(release: Release) -> Iterator[str]:
    """A tenant may send what an application sends that `stackproof capacity` takes for usual."""
    for backend, _ in _running(release):
        for name, limits in lgtm.limits(release, backend).items():
            may = _granted(backend, limits)
            for what, least, granted in (
                ("active series", _USUAL.series, may.series),
                ("samples/s", _USUAL.samples_per_s, may.samples_per_s),
                ("GB of logs a day", _USUAL.logs, may.logs),
                ("GB of traces a day", _USUAL.traces, may.traces),
            ):
                # The stack itself is no application.
                if 0 < granted < least and name != STACK_TENANT:
                    yield f"{backend}: {name} may send {granted:.3g} {what}, usual are {least:.3g}"


# --- What a program keeps in memory beside its data ---------------------------------------------


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache in a backend's memory.

    Args:
        path: Where its size stands in the configuration; the backend first.
        default: Its size where nothing stands there.
        unit: Bytes of one there.
        count: How many of this size the program makes.
        source: Where that is said.
    """

    path: str
    default: float
    unit: float
    count: int
    source: str

    def is_of(self, backend: str) -> bool:
        """Whether the backend has it."""
        return self.path.startswith(f"{backend}.")

    def size(self, config: Mapping[str, Any]) -> float:
        """Return what it may take, all together [bytes]."""
        found = at(config, self.path.partition(".")[2])
        return float(self.default if found is None else found) * self.unit * self.count


#: Those that are in use without being asked for. Mimir's caches of series' hashes and of postings
#: serve sharded queries only (`-query-frontend.parallelize-shardable-queries`, off by default);
#: Tempo has none of its own.
CACHES = (
    Cache(
        "mimir.blocks_storage.bucket_store.index_cache.inmemory.max_size_bytes",
        2.0**30,
        1,
        1,
        "mimir: pkg/storage/tsdb/indexcache/config.go, 1 GiB",
    ),
    Cache(
        "loki.chunk_store_config.chunk_cache_config.embedded_cache.max_size_mb",
        100,
        1e6,
        1,
        "loki: pkg/loki/config_wrapper.go turns it on, pkg/storage/chunk/cache: 100 MB",
    ),
    Cache(
        "loki.query_range.results_cache.cache.embedded_cache.max_size_mb",
        100,
        1e6,
        4,
        "loki: as above; index stats, volumes, series and labels each have one of this size",
    ),
)
_MOST_CACHED = 0.25


@SIZES.register
def caches_fit_their_container(release: Release) -> Iterator[str]:
    """All caches of a backend together take a quarter of its memory at most; a replay, most of it.

    Loki flushes what it reads from its write-ahead log when that reaches
    `ingester.wal.replay_memory_ceiling`, 4 GB by default (pkg/ingester/wal.go): beyond the
    container's limit it is killed instead, and again at the next start.
    """
    for backend, config in _running(release):
        memory = _given(release.get("StatefulSet", backend)).memory_gb * 1e9
        for cache in (one for one in CACHES if one.is_of(backend)):
            if cache.size(config) > _MOST_CACHED * memory:
                yield (
                    f"{backend}'s {cache.path.partition('.')[2]} comes to "
                    f"{cache.size(config) / _MIB:.0f} MiB, a quarter of its container's memory is "
                    f"{memory * _MOST_CACHED / _MIB:.0f} ({cache.source})"
                )
        if backend == "loki":
            ceiling = float(at(config, "ingester.wal.replay_memory_ceiling") or 4 * 2.0**30)
            if ceiling > 0.75 * memory:
                yield (
                    f"loki replays its log up to {ceiling / _MIB:.0f} MiB "
                    f"(ingester.wal.replay_memory_ceiling), its container has {memory / _MIB:.0f}"
                )
        if backend == "tempo" and _makes_local_blocks(release):
            live = at(config, "metrics_generator.processor.local_blocks.max_live_traces_bytes")
            # modules/generator/processor/localblocks/config.go: 250 MB for each tenant.
            all_live = float(live or 250e6) * max(1, len(lgtm.overrides(release, "tempo")))
            if all_live > _MOST_CACHED * memory:
                yield (
                    f"tempo's local blocks hold {all_live / _MIB:.0f} MiB of live traces of all "
                    f"tenants, a quarter of its memory is {memory * _MOST_CACHED / _MIB:.0f}"
                )


def _makes_local_blocks(release: Release) -> bool:
    everybody = lgtm.limits(release, "tempo").values()
    asked = (at(each, "metrics_generator.processors") or () for each in everybody)
    return any("local-blocks" in each for each in asked)


@SIZES.register
def series_from_spans_are_limited(release: Release) -> Iterator[str]:
    """What Tempo makes of spans is no more series than Mimir takes of that tenant.

    Without `metrics_generator.max_active_series` (0, no limit, by default) names of spans that are
    all different grow in Tempo's memory long after Mimir refuses them.
    """
    if not release.find("StatefulSet", "tempo"):
        return
    taken = lgtm.overrides(release, "mimir") if release.find("ConfigMap", "mimir") else {}
    for name, limits in lgtm.limits(release, "tempo").items():
        made = at(limits, "metrics_generator.max_active_series") or 0
        most = at(taken.get(name) or {}, "max_global_series_per_user")
        if not made > 0 or (most and made >= most):
            yield f"tempo makes {made or 'any number of'} series of {name}, Mimir takes {most or 0}"


# --- Volumes ------------------------------------------------------------------------------------

#: What a program has on its disk before anybody uses it [bytes], and why.
LEAST: Mapping[str, tuple[float, str]] = {
    "postgres": (4e9, "PostgreSQL's log alone may take max_wal_size, 1 GB, beside what it is for"),
    "weaviate": (4e9, "Weaviate takes no more writes when 90 % are used, and compacts into copies"),
    "open-webui": (4e9, "uploads, and models that are fetched once: about 1 GB"),
}
_SMALLEST = (1e9, "smaller is a slip of the unit")


@SIZES.register
def volumes_hold_what_is_always_there(release: Release) -> Iterator[str]:
    """Every claim is large enough for its program to start and to work."""
    for manifest in release:
        for claim in claims(manifest):
            size = amount(claim["spec"]["resources"]["requests"]["storage"])
            least, why = LEAST.get(manifest.labels.get(COMPONENT, ""), _SMALLEST)
            if size < least:
                sizes = f"{size / 1e9:.3g} GB, {least / 1e9:.3g} are least"
                yield f"{manifest.ref} claims {sizes}: {why}"


@SIZES.register
def queues_on_the_nodes_disk_are_asked_for(release: Release) -> Iterator[str]:
    """A pod that queues in an emptyDir asks for that much of the node's disk, and may use it.

    Unasked, the kubelet evicts such pods first when the node's disk is full: with the queue. A file
    of the queue (bbolt) keeps the size that it once had and is rewritten beside itself: twice.
    """
    for workload in release.workloads():
        for container in containers(workload):
            queued = sum(_queues(release, workload))
            if not queued:
                continue
            for kind in ("requests", "limits"):
                there = amount(at(container, f"resources.{kind}.ephemeral-storage") or 0)
                if there < 2 * queued:
                    yield (
                        f"{workload.ref} queues {queued / _MIB:.0f} MiB, its {kind} of "
                        f"ephemeral-storage are {there / _MIB:.0f} MiB, must be twice that"
                    )


_QUEUE = re.compile(r"storage\s*=\s*otelcol\.storage\.file[^}]*?queue_size\s*=\s*(\d+)")


def _queues(release: Release, workload: Manifest) -> Iterator[float]:
    """Yield the bytes of each queue that a workload's Alloy keeps on disk: one for each signal."""
    for volume in pod_spec(workload).get("volumes") or ():
        made = release.find("ConfigMap", str(at(volume, "configMap.name")))
        text = (made["data"].get("config.alloy") or "") if made else ""
        yield from (3 * float(size) for size in _QUEUE.findall(text))
