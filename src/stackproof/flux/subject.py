"""What the checks of the Flux tree look at, and their registry."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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

    def repository(self, release: Manifest) -> str:
        """Return the address of the repository that a HelmRelease's chart comes from."""
        reference = dig(chart_of(release), "sourceRef")
        namespace = reference.get("namespace") or release.namespace
        found = self.tree.find(reference.get("kind", ""), namespace, reference.get("name", ""))
        return str(found["spec"].get("url", "")).rstrip("/") if found else ""


FLUX: Rules[Subject] = Rules()


def at(applied: Applied) -> str:
    """Say where an object comes from."""
    manifest = applied.manifest
    where = f" in {manifest.namespace}" if manifest.namespace else ""
    return f"step {applied.step.name}: {manifest.ref}{where} ({manifest.source})"


def of(step: Step, manifest: Manifest) -> str:
    """Say where an object that a step applies itself comes from."""
    return at(Applied(manifest, step))


def applied(subject: Subject, *kinds: str) -> Iterator[tuple[Applied, Manifest]]:
    """Yield all that reaches the cluster, of these kinds."""
    for one in subject.tree.applied:
        if one.manifest.kind in kinds:
            yield one, one.manifest


def remote_keys(manifest: Manifest) -> list[str]:
    """Return the keys of the store that an ExternalSecret asks for by name."""
    return [entry["remoteRef"]["key"] for entry in manifest["spec"].get("data") or ()]


def dig(values: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """Return the map that stands at a path, an empty one if nothing does."""
    for key in path:
        values = values.get(key) or {}
    return values


def chart_of(release: Manifest) -> Mapping[str, Any]:
    """Return what a HelmRelease says of its chart, if it says it itself."""
    return dig(release["spec"], "chart", "spec")


def releases_of(subject: Subject, *charts: str) -> Iterator[tuple[Step, Manifest]]:
    """Yield the HelmReleases of these charts."""
    for step, release in own(subject, "HelmRelease"):
        if chart_of(release).get("chart") in charts:
            yield step, release


def leaves(values: Mapping[str, Any], known: Collection[str], path: str = "") -> Iterator[str]:
    """Yield the keys of values, such as `a.b.c`, down to those that are known."""
    for key, value in values.items():
        where = f"{path}.{key}".lstrip(".")
        if isinstance(value, Mapping) and where not in known:
            yield from leaves(value, known, where)
        else:
            yield where


def own(subject: Subject, *kinds: str) -> Iterator[tuple[Step, Manifest]]:
    """Yield what the steps apply themselves, of some kinds or of all."""
    for step in subject.tree.steps:
        for manifest in step.objects:
            if not kinds or manifest.kind in kinds:
                yield step, manifest
