"""What the repository deploys: `charts/lgtm` once, and `charts/open-webui-stack` for each tenant.

The values are those of a cluster: observability/*.yaml, and for a tenant those that Flux gives its
release; a synthetic tenant has what its registry entry says. Extra values come last, as a scenario
or a broken twin lays them over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stackproof.helm import renderer
from stackproof.helm.externals import read_values
from stackproof.helm.manifests import Release
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE, Registry, Tenant, load_registry

from .tree import build_tenant

LGTM_RELEASE = "lgtm"
TENANT_RELEASE = "open-webui"

#: The values files of `charts/lgtm`; the list of tenants follows them.
_LGTM_VALUES = ("mimir-values", "loki-values", "tempo-values", "gateway-values", "grafana-values")


@dataclass(frozen=True)
class Deployment:
    """The releases of one checkout.

    Args:
        checkout: Where charts and values are read.
        registry: The tenants.
        lgtm_extra: Values laid over those of `charts/lgtm`.
        tenant_extra: Values laid over those of every tenant's `charts/open-webui-stack`.
    """

    checkout: Checkout
    registry: Registry
    lgtm_extra: Sequence[renderer.Values] = ()
    tenant_extra: Sequence[renderer.Values] = ()

    @classmethod
    def load(cls, checkout: Checkout) -> Deployment:
        """Return the deployment with the checkout's own list of tenants."""
        return cls(checkout, load_registry(checkout))

    def with_synthetic(self, count: int) -> Deployment:
        """Return the same with `count` made-up tenants besides its own."""
        return replace(self, registry=self.registry.with_synthetic(count))

    def with_values(
        self, *, lgtm: Sequence[renderer.Values] = (), tenant: Sequence[renderer.Values] = ()
    ) -> Deployment:
        """Return the same with further values laid over."""
        return replace(
            self, lgtm_extra=(*self.lgtm_extra, *lgtm), tenant_extra=(*self.tenant_extra, *tenant)
        )

    def lgtm_values(self) -> list[renderer.Values]:
        """Return the values of the observability release, in Helm's order."""
        files = [self._observability(name) for name in _LGTM_VALUES]
        return [*files, self.registry.values(), *self.lgtm_extra]

    def tenant_values(self, tenant: Tenant) -> list[renderer.Values]:
        """Return the values of one tenant's release, in Helm's order: those that Flux gives it."""
        if (self.checkout.flux / "tenants" / tenant.name).is_dir():
            delivered = build_tenant(self.checkout, tenant.name)
            return [*delivered.values_of(tenant.namespace, TENANT_RELEASE), *self.tenant_extra]
        # The image is the one that Flux deploys: new tags are written there, and nowhere else.
        base = self.checkout.flux / "base" / "open-webui" / "helmrelease.yaml"
        own: renderer.Values = {
            "openWebui": {
                "image": read_values(base)["spec"]["values"]["openWebui"]["image"],
                "config": {"telemetry": {"otel": {"tenantId": tenant.name}}},
            },
            "externalSecrets": {"keyPrefix": tenant.secret_prefix},
        }
        production = self.checkout.charts / "open-webui-stack" / "values-prod.yaml"
        return [production, self._observability("alloy-values"), own, *self.tenant_extra]

    def all_values(self) -> list[list[renderer.Values]]:
        """Return the values of each of `releases`."""
        return [self.lgtm_values(), *(self.tenant_values(tenant) for tenant in self.registry)]

    def lgtm(self, *, fresh: bool = False) -> Release:
        """Render the observability release; `fresh` asks no cache."""
        return renderer.render(
            self.checkout.charts / "lgtm",
            self.lgtm_values(),
            release=LGTM_RELEASE,
            namespace=OBSERVABILITY_NAMESPACE,
            fresh=fresh,
        )

    def tenant(self, name: str, *, fresh: bool = False) -> Release:
        """Render the release of one tenant; `fresh` asks no cache."""
        tenant = self.registry.get(name)
        return renderer.render(
            self.checkout.charts / "open-webui-stack",
            self.tenant_values(tenant),
            release=TENANT_RELEASE,
            namespace=tenant.namespace,
            fresh=fresh,
        )

    def releases(self, *, fresh: bool = False) -> tuple[Release, ...]:
        """Render all releases: the observability release, then each tenant's."""
        tenants = (self.tenant(name, fresh=fresh) for name in self.registry.names)
        return (self.lgtm(fresh=fresh), *tenants)

    def _observability(self, name: str) -> Path:
        return self.checkout.observability / f"{name}.yaml"
