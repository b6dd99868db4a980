"""Sizes that do not fit: volumes, memory, caches and limits."""

from __future__ import annotations

from typing import Any

from .base import Edit, Twin, edited, in_lgtm, invalid

_UNITS: tuple[Twin, ...] = (
    invalid(
        "megabytes-for-a-disk",
        "Mimir's volume has 10M instead of 10Gi",
        r"mimir/persistence/size.*'10M' does not match pattern",
        lgtm={"mimir": {"persistence": {"size": "10M"}}},
    ),
    invalid(
        "thousandths-of-a-byte",
        "Loki's memory is 512m, half a byte, instead of 512Mi",
        r"loki/resources/limits/memory.*'512m' does not match pattern",
        lgtm={"loki": {"resources": {"limits": {"memory": "512m"}}}},
    ),
    invalid(
        "megabytes-for-a-database",
        "PostgreSQL's volume has 10Mi instead of 10Gi",
        r"postgres/persistence/size.*'10Mi' does not match pattern",
        tenant={"postgres": {"persistence": {"size": "10Mi"}}},
    ),
)


def _unfit(name: str, fault: str, reason: str, *edits: Edit, **values: Any) -> Twin:
    """Sizes that are well formed and do not fit each other."""
    return edited(name, fault, "deployment.sizes-fit-the-limits", reason, *edits, **values)


def _memory(backend: str, memory: str) -> dict[str, Any]:
    requests = {"requests": {"memory": "256Mi"}}
    return {backend: {"resources": requests | {"limits": {"memory": memory}}}}


_FIT: tuple[Twin, ...] = (
    _unfit(
        "disk-that-the-limits-fill",
        "Mimir's volume has 10 GiB, and the tenants may write 137 GB within the retention",
        r"mimir: 4 tenants at the limits .*need disk of 1\d\d GB, it has 10\.7 GB",
        Edit("observability/mimir-values.yaml", "size: 250Gi", "size: 10Gi"),
    ),
    _unfit(
        "series-that-the-memory-does-not-hold",
        "each tenant may have a million series, in 4 GiB",
        r"mimir: .*series.* need memory of [\d.]+ GB, it has",
        lgtm={"defaults": {"limits": {"metrics": {"activeSeries": 1_000_000}}}},
    ),
    _unfit(
        "lines-that-fill-the-disk",
        "each tenant may send 4 MB of lines a second, kept 31 days, on 550 GiB",
        r"loki: .*need disk of .* it has",
        lgtm={"defaults": {"limits": {"logs": {"megabytesPerSecond": 4}}}},
    ),
    _unfit(
        "retention-that-the-disk-does-not-hold",
        "one tenant's data is kept for a year on the same disk",
        r"tempo: .*kept up to 36\d days\) need disk",
        Edit("observability/tenants.yaml", "-b\n    retention: 744h", "-b\n    retention: 8760h"),
    ),
    _unfit(
        "limits-below-what-is-usual",
        "a tenant may have 1,000 series, an application has ten times as many",
        r"mimir: soev may send 1e\+03 active series, usual are 1e\+04",
        lgtm={"defaults": {"limits": {"metrics": {"activeSeries": 1000}}}},
    ),
    _unfit(
        "cache-as-large-as-its-container",
        "Mimir's cache of indexes has its default of 1 GiB in a container of 1 GiB",
        r"mimir's .*index_cache.* comes to 1024 MiB, a quarter .* is 256",
        in_lgtm("mimir.yaml", "        max_size_bytes: ", "        # max_size_bytes: "),
        lgtm=_memory("mimir", "1Gi"),
    ),
    _unfit(
        "caches-as-large-as-their-container",
        "Loki's caches have their default of 100 MB, five times, in a container of 512 MiB",
        r"loki's query_range\..* comes to 381 MiB, a quarter .* is 128",
        in_lgtm("loki.yaml", "max_size_mb: ", "# max_size_mb: "),
        lgtm=_memory("loki", "512Mi"),
    ),
    _unfit(
        "replay-beyond-the-container",
        "Loki may replay 4 GB of its log, and is killed at 1 GiB each time it starts",
        r"loki replays its log up to 4096 MiB .*its container has 1024",
        in_lgtm("loki.yaml", "    replay_memory_ceiling: ", "    # replay_memory_ceiling: "),
    ),
    _unfit(
        "any-number-of-series-from-spans",
        "spans whose names are all different become series in Tempo's memory without end",
        r"tempo makes any number of series of soev",
        in_lgtm("tempo.yaml", "  max_active_series: ", "  # max_active_series: "),
    ),
    _unfit(
        "queue-that-nobody-asked-for",
        "Alloy queues on a node's disk without having requested any of it",
        r"Deployment/open-webui-alloy queues 192 MiB, its requests of ephemeral-storage are 0 MiB",
        Edit("charts/open-webui-stack/values.yaml", ": 256Mi, ephemeral-storage: 512Mi", ": 256Mi"),
    ),
    _unfit(
        "disk-that-its-own-log-fills",
        "PostgreSQL's volume has 1 GiB, which is what its write-ahead log may take",
        r"StatefulSet/open-webui-postgres claims 1\.07 GB, 4 are least",
        tenant={"postgres": {"persistence": {"size": "1Gi"}}},
    ),
)

SIZES: tuple[Twin, ...] = (*_UNITS, *_FIT)
