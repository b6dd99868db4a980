"""What Flux delivers is what everything else here looks at: the same objects of each release."""

from __future__ import annotations

from collections.abc import Iterator

from stackproof.helm.manifests import Manifest, Release
from stackproof.repo.tenants import OBSERVABILITY_NAMESPACE

from .deployment import LGTM_RELEASE, TENANT_RELEASE, Deployment
from .tree import Tree


def differing(tree: Tree, deployment: Deployment) -> Iterator[str]:
    """Yield what Flux would apply in another way than `deployment` renders it.

    A tenant's host and service name are Flux's alone; whatever carries its telemetry is not.
    """
    yield from _compare(tree, OBSERVABILITY_NAMESPACE, LGTM_RELEASE, deployment.lgtm())
    for tenant in deployment.registry:
        ours = deployment.tenant(tenant.name)
        yield from _compare(tree, tenant.namespace, TENANT_RELEASE, ours)


def _compare(tree: Tree, namespace: str, name: str, ours: Release) -> Iterator[str]:
    found = tree.releases.get((namespace, name))
    if found is None or found.rendered is None:
        yield f"{namespace}: Flux renders no release {name}"
        return
    mine, theirs = _objects(ours), _objects(found.rendered)
    for ref in sorted(mine.keys() ^ theirs.keys()):
        yield f"{namespace}: {ref} is only {'rendered here' if ref in mine else 'in the Flux tree'}"
    for ref in sorted(mine.keys() & theirs.keys()):
        carries = name == LGTM_RELEASE or ref.endswith("-alloy") or "ExternalSecret" in ref
        if carries and mine[ref] != theirs[ref]:
            yield f"{namespace}: Flux applies another {ref}"


def _objects(release: Release) -> dict[str, Manifest]:
    return {manifest.ref: manifest for manifest in release}
