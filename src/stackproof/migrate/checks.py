"""What must hold for a merge onto a release that holds data: each function yields what does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

from stackproof.flux import losses, steps
from stackproof.flux.losses import VITAL, Harm, Loss, Objects
from stackproof.flux.objects import Key, key_of
from stackproof.flux.releases import AUTO, DISABLED, ENABLED, server_side_apply
from stackproof.flux.tree import Tree
from stackproof.helm import podsecurity
from stackproof.helm.manifests import WORKLOAD_KINDS, Manifest, containers, pod_template
from stackproof.rules import Rules

from .deployed import Deployed


@dataclass(frozen=True)
class Change:
    """A release that runs, and what a merge makes of it.

    Args:
        old: What runs.
        merged: What the release renders after the merge.
        level: The pod security level that its namespace then enforces; "" for none.
        known: Migrations that the application's new image has; None where that is not known.
        goal: Image tags that the chart itself would run, by component.
        apply: How the merge is applied: `enabled` or `disabled` server-side apply, or `auto`, as
            the release was before (HelmRelease, `spec.upgrade.serverSideApply`).
    """

    old: Deployed
    merged: tuple[Manifest, ...]
    level: str = ""
    known: frozenset[str] | None = None
    goal: Mapping[str, str] | None = None
    apply: str = AUTO

    @cached_property
    def before(self) -> Objects:
        """What the release has in the cluster."""
        return losses.of(self.old.manifests)

    @cached_property
    def after(self) -> Objects:
        """What it will have."""
        return losses.of(manifest for manifest in self.merged if not manifest.is_hook)

    @cached_property
    def losses(self) -> tuple[Loss, ...]:
        """The data that the merge takes away."""
        return losses.losses(self.before, self.after)

    @cached_property
    def refused(self) -> Mapping[Key, tuple[str, ...]]:
        """What Kubernetes refuses to change."""
        return losses.refusals(self.before, self.after, server_side=bool(self.server_side))

    @cached_property
    def server_side(self) -> bool | None:
        """Whether it is a server-side apply; None where that is not known."""
        return {ENABLED: True, DISABLED: False}.get(self.apply, self.old.server_side)

    @cached_property
    def refused_server_side(self) -> Mapping[Key, tuple[str, ...]]:
        """What Kubernetes refuses to change, if it is a server-side apply."""
        return losses.refusals(self.before, self.after, server_side=True)

    @cached_property
    def images(self) -> Mapping[str, tuple[str, str]]:
        """Image before and after, by component, of the workloads that go on."""
        found = steps.images(self.before, self.after)
        return {component: (was, now) for component, was, now in found}

    def heir(self, manifest: Manifest) -> Manifest | None:
        """Return the workload that stands for one afterwards."""
        is_workload = manifest.kind in {"Deployment", "StatefulSet", "DaemonSet"}
        return losses.successor(manifest, self.after) if is_workload else None


MIGRATION: Rules[Change] = Rules()


@MIGRATION.register
def the_release_is_at_rest(change: Change) -> Iterator[str]:
    """Nothing else is upgrading the release, and its last upgrade did not fail."""
    if change.old.status != "deployed":
        yield (
            f"release {change.old.name} is {change.old.status}: Helm upgrades only one that is "
            "deployed. `helm history` says what happened, `helm rollback` ends it"
        )


@MIGRATION.register
def nothing_is_lost(change: Change) -> Iterator[str]:
    """No claim, Secret or database is deleted, left to nobody or looked for where it is not."""
    yield from map(str, change.losses)


@MIGRATION.register
def nothing_is_refused(change: Change) -> Iterator[str]:
    """Kubernetes lets every object change as it must: else the upgrade stops there."""
    yield from _refusals(change.refused)


def _refusals(refused: Mapping[Key, tuple[str, ...]]) -> Iterator[str]:
    for (_, kind, namespace, name), fields in refused.items():
        yield f"{kind}/{name} in {namespace}: Kubernetes refuses to change {', '.join(fields)}"


@MIGRATION.register
def pods_are_admitted(change: Change) -> Iterator[str]:
    """The namespace admits the new pods, and the old ones too: a rollback brings those back."""
    for when, objects in (("a rollback brings up", change.before), ("it brings up", change.after)):
        for manifest in objects.values():
            pods = manifest.kind in WORKLOAD_KINDS
            why = list(podsecurity.refusals(change.level, manifest)) if pods else []
            if why:
                yield (
                    f"{manifest.ref} in {manifest.namespace}: under {podsecurity.LABEL}: "
                    f"{change.level} {when} none of its pods ({', '.join(why)})"
                )


@MIGRATION.register
def policies_are_enforced(change: Change) -> Iterator[str]:
    """The cluster's network enforces NetworkPolicies: another takes them, and closes nothing."""
    policies = sum(key[1] == "NetworkPolicy" for key in change.after)
    if change.old.enforced is False and policies:
        yield (
            f"{policies} NetworkPolicies would close nothing: on not every node is there anetd "
            "(Dataplane V2) or calico-node. Whatever runs in the cluster could ask the backends, "
            "which believe any tenant: turn enforcement on first (flux/README.md)"
        )


@MIGRATION.register
def hosts_are_served_once(change: Change) -> Iterator[str]:
    """No Ingress is made while another one has its host: the controller would refuse it."""
    there = [m for m in change.old.manifests if m.kind == "Ingress"] + list(change.old.ingresses)
    taken = {(host, path): m for m in there for host, path in _served(m)}
    for key, manifest in change.after.items():
        for place in _served(manifest) if key[1] == "Ingress" else ():
            other = taken.get(place)
            if other is not None and key_of(other) != key:
                yield (
                    f"{manifest.ref} in {manifest.namespace}: {other.ref} in {other.namespace} has "
                    f"{place[0]}{place[1]} already, and new objects are made before old ones go"
                )


def _served(ingress: Manifest) -> Iterator[tuple[str, str]]:
    for rule in ingress["spec"].get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            yield rule.get("host") or "*", path.get("path") or "/"


# --- Versions -----------------------------------------------------------------------------------


@MIGRATION.register
def versions_go_step_by_step(change: Change) -> Iterator[str]:
    """No program skips a version that it must run first, and none goes back."""
    for component, (was, now) in change.images.items():
        yield from steps.jumps(component, was, now)


def next_steps(change: Change) -> Iterator[str]:
    """Yield what is still to come after this merge, of programs that go step by step."""
    for component, wanted in (change.goal or {}).items():
        image = change.images.get(component, ("", ""))[1]
        here, there = steps.version(image), steps.version(f"x:{wanted}")
        if steps.STEPS.get(component) is steps.UpgradeStep.MINOR and here and here < there:
            path = ", ".join([*steps.between(here, there), wanted])
            yield f"{component} stays at {steps.tag(image)}; later, one merge each: {path}"


@MIGRATION.register
def the_database_is_known(change: Change) -> Iterator[str]:
    """The application knows the newest migration of its database: it refuses to start else."""
    revision = change.old.revision
    if revision and change.known is not None and revision not in change.known:
        was, now = change.images.get("open-webui", ("", ""))
        yield (
            f"open-webui: {now} does not know the migration {revision}, which {was} has made: "
            "it does not start on this database. Keep an image of the same line"
        )


@MIGRATION.register
def images_are_pulled_as_before(change: Change) -> Iterator[str]:
    """A registry that old pods named a credential for is not asked without one by the new ones."""
    for manifest in change.before.values():
        heir = change.heir(manifest)
        if heir is None or not (gone := _pulled_with(manifest) - _pulled_with(heir)):
            continue
        if _pulled_with(heir) or not _registries(manifest) & _registries(heir):
            continue
        yield (
            f"{heir.ref} in {heir.namespace}: its image came from "
            f"{', '.join(sorted(_registries(heir)))} with Secret/{', '.join(sorted(gone))}, which "
            "its new pod does not name: a private image is not pulled (global.imagePullSecrets)"
        )


def _pulled_with(workload: Manifest) -> set[str]:
    return {one["name"] for one in pod_template(workload)["spec"].get("imagePullSecrets") or ()}


def _registries(workload: Manifest) -> set[str]:
    """Return the registries that a workload's images name; Docker Hub is the one that none does."""
    firsts = (c["image"].partition("/") for c in containers(workload))
    return {host for host, slash, _ in firsts if slash and set(".:") & set(host)}


# --- Secrets ------------------------------------------------------------------------------------


@MIGRATION.register
def secrets_are_the_present_ones(change: Change) -> Iterator[str]:
    """What the store holds is what the cluster has, where another value would lock somebody out."""
    store = change.old.store
    for key, remote, present in _fetched(change):
        if store is None:
            continue
        if remote not in store:
            yield f"{remote} is not in the store: the Secret with {key} is not made, and pods wait"
        elif key in VITAL and present and store[remote] != present:
            yield (
                f"{remote} in the store is not the {key} of the cluster "
                f"(sha256 {store[remote][:8]}, {present[:8]}): {VITAL[key]}"
            )


def _fetched(change: Change) -> Iterator[tuple[str, str, str | None]]:
    """Yield key, remote key and present digest of what the merge newly takes from the store."""
    present = {key: value for one in change.old.secrets.values() for key, value in one.items()}
    already = set(_entries(change.before))
    for key, remote in _entries(change.after):
        if (key, remote) not in already:
            yield key, remote, present.get(key)


def _entries(objects: Objects) -> Iterator[tuple[str, str]]:
    for manifest in objects.values():
        if manifest.kind == "ExternalSecret":
            for entry in manifest["spec"].get("data") or ():
                yield entry["secretKey"], entry["remoteRef"]["key"]


def unproven(change: Change) -> Iterator[str]:
    """Yield what could not be compared, so that nobody takes silence for consent."""
    if change.server_side is None:
        for text in _refusals(change.refused_server_side):
            if text not in _refusals(change.refused):
                yield (
                    f"how Helm applied {change.old.name} last; if by server-side apply, {text}: "
                    "ask the cluster (--context), or apply from the client "
                    "(spec.upgrade.serverSideApply: disabled; helm upgrade --server-side=false)"
                )
    fetched = [remote for key, remote, present in _fetched(change) if key in VITAL and present]
    if fetched and change.old.store is None:
        yield (
            f"whether {' and '.join(fetched)} in the store are the present values: "
            "name them in a file (--store)"
        )
    was, now = change.images.get("open-webui", ("", ""))
    if was.rpartition(":")[0] != now.rpartition(":")[0]:
        if change.old.revision is None:
            yield (
                f"whether {now} knows the database that {was} has made: name its newest "
                "migration, alembic_version.version_num (--database-revision)"
            )
        elif change.known is None:
            yield f"whether {now} knows the migration {change.old.revision}"


# --- Object by object ---------------------------------------------------------------------------


class Fate(StrEnum):
    """What the merge does to an object."""

    KEPT = "kept"
    CHANGED = "changed"
    ADDED = "added"
    MADE_AGAIN = "made again"
    REMOVED = "removed"
    REFUSED = "refused"
    DELETED = "deleted"
    ORPHANED = "orphaned"
    EMPTIED = "emptied"
    UNGUARDED = "unguarded"


def fates(change: Change) -> dict[Key, Fate]:
    """Return what becomes of every object, the StatefulSets' claims included."""
    held = [claim.key for claim in losses.claims(change.before)]
    mounted = {claim.key for claim in losses.claims(change.after)}
    found = {key: _fate(change, key) for key in [*change.before, *change.after]}
    found |= {key: Fate.KEPT for key in held if key not in found and key in mounted}
    found |= {loss.key: Fate(loss.harm.value) for loss in change.losses}
    return found


def _fate(change: Change, key: Key) -> Fate:
    was, now = change.before.get(key), change.after.get(key)
    if key in change.refused:
        return Fate.REFUSED
    if was is None:
        return Fate.ADDED
    if now is None:
        made = {losses.secret_of(m) for m in change.merged if m.kind == "ExternalSecret"}
        if key in made:
            return Fate.MADE_AGAIN
        return Fate.KEPT if losses.is_kept(was) else Fate.REMOVED
    return Fate.KEPT if was == now or key[1] == "PersistentVolumeClaim" else Fate.CHANGED


RED: Final = frozenset(Fate(harm.value) for harm in Harm) | {Fate.REFUSED}


@dataclass(frozen=True)
class Merge:
    """What a tree makes of a release: the `merged`, `level` and `apply` of a `Change`."""

    manifests: tuple[Manifest, ...]
    level: str
    apply: str


def merged(tree: Tree, namespace: str, release: str) -> Merge | None:
    """Return what a tree makes of a release; None where no HelmRelease of the tree is it."""
    for found in tree.releases.values():
        spec = found.manifest["spec"]
        name = spec.get("releaseName") or found.manifest.name
        where = spec.get("targetNamespace") or found.manifest.namespace
        if (name, where) == (release, namespace) and found.rendered is not None:
            space = tree.find("Namespace", None, namespace)
            level = space.labels.get(podsecurity.LABEL, "") if space else ""
            return Merge(tuple(found.rendered), level, server_side_apply(found.manifest))
    return None
