"""What the checks of the Flux tree look at, and their registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from stackproof.helm.manifests import Manifest
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import Registry, load_registry
from stackproof.rules import Rules

from .tree import Applied, HelmRelease, Step, Tree, build

TENANT_CHART = "open-webui-stack"


@dataclass(frozen=True)
class Subject:
    """A tree, and what it is compared with."""

    tree: Tree

    @classmethod
    def load(cls, checkout: Checkout, cluster: str = "production") -> Subject:
        """Build a checkout's tree."""
        return cls(build(checkout, cluster))

    @property
    def checkout(self) -> Checkout:
        """Whose tree it is."""
        return self.tree.checkout

    @cached_property
    def registry(self) -> Registry:
        """The list of tenants."""
        return load_registry(self.checkout)

    @cached_property
    def tenant_releases(self) -> tuple[HelmRelease, ...]:
        """The HelmReleases of the tenants' chart."""
        return tuple(
            release
            for release in self.tree.releases.values()
            if release.chart and release.chart.name == TENANT_CHART
        )

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Place of each step in the order."""
        return {step.name: place for place, step in enumerate(self.tree.steps)}


FLUX: Rules[Subject] = Rules()


def at(applied: Applied) -> str:
    """Say where an object comes from."""
    manifest = applied.manifest
    where = f" in {manifest.namespace}" if manifest.namespace else ""
    return f"step {applied.step.name}: {manifest.ref}{where} ({applied.source})"


def of(step: Step, manifest: Manifest) -> str:
    """Say where an object that a step applies itself comes from."""
    return at(Applied(manifest, step))


def own(subject: Subject, *kinds: str) -> Iterator[tuple[Step, Manifest]]:
    """Yield what the steps apply themselves, of some kinds or of all."""
    for step in subject.tree.steps:
        for manifest in step.objects:
            if not kinds or manifest.kind in kinds:
                yield step, manifest
