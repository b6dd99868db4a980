"""Faults of who reaches whom: on the clusters that this is meant for, and where ways lead."""

from __future__ import annotations

from stackproof.twins.base import Edit, Layer, Twin


def _shown(name: str, fault: str, check: str, reason: str, *edits: Edit) -> Twin:
    return Twin(
        name=name,
        fault=fault,
        layer=Layer.UNIT,
        caught_by=f"deployment.{check}",
        reason=reason,
        edits=edits,
    )


NETWORK: tuple[Twin, ...] = (
    _shown(
        "span-metrics-go-nowhere",
        "scaled out, Tempo writes its span metrics to a namespace that Mimir is not in",
        "what-is-scaled-out-finds-itself",
        r"tempo-values\.yaml: mimir-gateway\.observability\.svc: .* installs mimir into backends",
        Edit(
            "observability/scale-out/tempo-values.yaml",
            "mimir-gateway.backends.svc",
            "mimir-gateway.observability.svc",
        ),
    ),
)
