"""Sizes that do not fit: volumes, memory, caches and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackproof.twins.base import Layer, Twin


def _refused(
    name: str,
    fault: str,
    reason: str,
    *,
    lgtm: Mapping[str, Any] | None = None,
    tenant: Mapping[str, Any] | None = None,
) -> Twin:
    """A size that the chart's schema refuses."""
    return Twin(
        name=name,
        fault=fault,
        layer=Layer.SCHEMA,
        caught_by="render",
        reason=reason,
        lgtm=lgtm or {},
        tenant=tenant or {},
    )


_UNITS: tuple[Twin, ...] = (
    _refused(
        "megabytes-for-a-disk",
        "Mimir's volume has 10M instead of 10Gi",
        r"mimir/persistence/size.*'10M' does not match pattern",
        lgtm={"mimir": {"persistence": {"size": "10M"}}},
    ),
    _refused(
        "thousandths-of-a-byte",
        "Loki's memory is 512m, half a byte, instead of 512Mi",
        r"loki/resources/limits/memory.*'512m' does not match pattern",
        lgtm={"loki": {"resources": {"limits": {"memory": "512m"}}}},
    ),
    _refused(
        "megabytes-for-a-database",
        "PostgreSQL's volume has 10Mi instead of 10Gi",
        r"postgres/persistence/size.*'10Mi' does not match pattern",
        tenant={"postgres": {"persistence": {"size": "10Mi"}}},
    ),
)

SIZES: tuple[Twin, ...] = _UNITS
