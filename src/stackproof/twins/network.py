"""Faults of who reaches whom: on the clusters that this is meant for, and where ways lead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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


_CACHE, _CLOUD_DNS = "169.254.20.10/32", "169.254.169.254/32"
_SERVICES = ("34.118.224.0/20", "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")


def _deaf(
    network: str, fault: str, reason: str, *, pods: Sequence[str], cidrs: Sequence[str]
) -> Iterator[Twin]:
    """The resolvers of one network left out, in each chart."""
    values = {"networkPolicy": {"dns": {"pods": pods, "cidrs": cidrs}}}
    for chart, where in (("lgtm", "observability"), ("tenant", "open-webui")):
        yield Twin(
            name=f"no-names-on-{network}-{chart}",
            fault=f"{where}: {fault}",
            layer=Layer.UNIT,
            caught_by="platform.names-are-resolved-on-every-network",
            reason=rf"{where}: on GKE {reason}",
            lgtm=values if chart == "lgtm" else {},
            tenant=values if chart == "tenant" else {},
        )


_NAMES = (
    *_deaf(
        "dataplane-v2",
        "pods may ask kube-dns, and not the cache that Dataplane V2 hands queries to",
        r"Standard or Autopilot with Dataplane V2 no egress rule lets .* ask pods .*node-local-dns",
        pods=["kube-dns"],
        cidrs=[_CACHE, _CLOUD_DNS, *_SERVICES],
    ),
    *_deaf(
        "calico",
        "pods may ask kube-dns, and not the address of its Service, where the cache answers",
        r"Standard with Calico no egress rule lets .* ask 34\.118\.224\.10 .*not translated",
        pods=["kube-dns", "node-local-dns"],
        cidrs=[_CACHE, _CLOUD_DNS],
    ),
    *_deaf(
        "cloud-dns",
        "pods may ask pods only, where the node's metadata server answers",
        r"with Cloud DNS no egress rule lets .* ask 169\.254\.169\.254 .*no pod",
        pods=["kube-dns", "node-local-dns"],
        cidrs=[_CACHE, *_SERVICES],
    ),
)

NETWORK: tuple[Twin, ...] = (
    *_NAMES,
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
