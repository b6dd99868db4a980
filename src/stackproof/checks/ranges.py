"""How far back each query API may be asked, and how long data is kept.

A range that is too long is refused (Loki, Tempo) or silently cut (Mimir, Loki's lookback). Where
several tenants are asked at once, the backends take the smallest limit of them all, so that each
tenant's must let the longest retention through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from stackproof.helm.manifests import at
from stackproof.repo.tenants import format_duration, parse_duration

#: Limits of a range, by backend: where each stands in the configuration, where in the limits of a
#: tenant (None: nowhere), and what it is where nothing is said; 0 is no limit. Sources:
#: pkg/validation/limits.go of Loki, modules/frontend/config.go of Tempo, Mimir's
#: pkg/util/validation/limits.go; `test_ranges.py` asks the programs.
RANGES: Mapping[str, tuple[tuple[str, str | None, str], ...]] = {
    "loki": (
        ("limits_config.max_query_length", "max_query_length", "721h"),
        ("limits_config.max_query_lookback", "max_query_lookback", "0s"),
        ("limits_config.max_query_range", "max_query_range", "0s"),
    ),
    "tempo": (("query_frontend.search.max_duration", "read.max_search_duration", "168h"),),
    "mimir": (
        ("limits.max_query_lookback", "max_query_lookback", "0s"),
        ("limits.max_partial_query_length", "max_partial_query_length", "0s"),
        ("limits.max_total_query_length", "max_total_query_length", "0s"),
        ("limits.max_labels_query_length", "max_labels_query_length", "0s"),
    ),
}
#: Where the retention stands: of those that are not listed, and in the limits of a tenant.
RETENTION = {
    "loki": ("limits_config.retention_period", "retention_period"),
    "tempo": ("overrides.defaults.compaction.block_retention", "compaction.block_retention"),
    "mimir": ("limits.compactor_blocks_retention_period", "compactor_blocks_retention_period"),
}


def too_short(
    backend: str, config: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the limits of a range below the longest retention of any tenant."""
    whole, own = RETENTION[backend]
    kept = [at(config, whole), *(at(limits, own) for limits in overrides.values())]
    longest = max(_duration(one) for one in kept if one)
    for path, override, default in RANGES[backend]:
        found = {"": at(config, path)}
        for tenant, limits in overrides.items() if override else ():
            found[tenant] = at(limits, override) if override else None
        for tenant, limit in found.items():
            text = str(limit or (default if tenant == "" else "0s"))
            if timedelta() < _duration(text) < longest:
                whose = f"{tenant}'s {override}" if tenant else path
                yield f"{backend}: {whose} is {text}, data is kept for {format_duration(longest)}"


def _duration(text: object) -> timedelta:
    return timedelta() if str(text) in {"0", "0s"} else parse_duration(str(text))
