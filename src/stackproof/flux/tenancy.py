"""Whose a namespace is: a tenant shares its own with nobody."""

from __future__ import annotations

from collections.abc import Iterator

from stackproof.errors import UsageError
from stackproof.helm.manifests import Manifest, hosts
from stackproof.repo.checkout import Checkout

from .subject import FLUX, Subject, at, own
from .tree import Applied, build


@FLUX.register
def tenants_live_alone(subject: Subject) -> Iterator[str]:
    """What is in a tenant's namespace comes from that tenant's step alone."""
    releases = {release.manifest.ref for release in subject.tenant_releases}
    homes = {m.namespace: step for step, m in own(subject, "HelmRelease") if m.ref in releases}
    for applied in subject.tree.applied:
        step = homes.get(_home(applied.manifest))
        if step and step is not applied.step:
            yield f"{at(applied)}: is in the namespace of {step.name}"


def check_free(checkout: Checkout, namespace: str, host: str) -> None:
    """Raise where something of the tree is in a namespace already, or serves a host.

    Raises:
        StackproofError: It is; or the tree does not build.
    """
    for there in build(checkout).applied:
        if _home(there.manifest) == namespace:
            raise _taken(there, f"namespace {namespace!r} is taken: {there.manifest.ref} is in it")
        if host in hosts(there.manifest):
            raise _taken(there, f"host {host!r} is taken: {there.manifest.ref} serves it")


def _taken(there: Applied, reason: str) -> UsageError:
    return UsageError(
        reason,
        where=f"step {there.step.name} ({there.manifest.source})",
        todo="A tenant shares neither with anybody: choose another.",
    )


def _home(manifest: Manifest) -> str | None:
    return manifest.name if manifest.kind == "Namespace" else manifest.namespace
