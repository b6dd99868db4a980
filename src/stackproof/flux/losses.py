"""What a change does to the data: volumes, databases and secrets that it deletes, leaves or hides.

An object that Kubernetes lets go is no loss in itself. What is lost is what a volume holds: when
its claim is deleted, when nothing uses the claim any more and its successor begins empty, or when
the same volume is looked at under another name (another folder of it, another database, another
name in a cluster's own records). Both `flux diff` and `stackproof migrate` look with these eyes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from stackproof.helm.manifests import Manifest, Release, containers, pod_template, target_secret

from .immutable import refused
from .objects import Key, key_of

Objects = Mapping[Key, Manifest]
"""What a cluster has, or will have: everything that is applied to it."""

KEPT = (("helm.sh/resource-policy", "keep"), ("kustomize.toolkit.fluxcd.io/prune", "disabled"))
"""Annotations with which Helm and Flux leave an object that is in no manifest any more."""


class Harm(StrEnum):
    """What happens to data."""

    DELETED = "deleted"
    ORPHANED = "orphaned"
    EMPTIED = "emptied"
    UNGUARDED = "unguarded"


@dataclass(frozen=True, slots=True)
class Loss:
    """Data that a change takes away."""

    key: Key
    harm: Harm
    why: str

    def __str__(self) -> str:
        _, kind, namespace, name = self.key
        return f"{kind}/{name}{f' in {namespace}' if namespace else ''}: {self.harm}: {self.why}"


#: Variables by which a program finds what it has stored, and what another value means.
#: Weaviate: issues 3547 and 5491 of weaviate/weaviate. PostgreSQL: the image's own documentation.
PLACES: Final[Mapping[str, str]] = {
    "PGDATA": "PostgreSQL looks for its database elsewhere on the volume, and makes an empty one",
    "POSTGRES_DB": "only an empty volume gets a database of this name: the application finds none",
    "POSTGRES_USER": "only an empty volume gets this user: the application cannot log in",
    "PERSISTENCE_DATA_PATH": "Weaviate looks for its files elsewhere, and begins empty",
    "CLUSTER_HOSTNAME": "Weaviate keeps its shards under this name: it does not find its vectors",
    "VECTOR_DB": "the vectors of all documents stay in the other database",
    "RAG_EMBEDDING_MODEL": "the stored vectors are of the other model: searches find nothing",
    "WEAVIATE_HTTP_HOST": "the vectors of all documents stay in the other one",
    "DATA_DIR": "the application looks for its uploads elsewhere",
    "STORAGE_PROVIDER": "the application looks for its uploads elsewhere",
}
#: What is meant where one is not set (open_webui/config.py and env.py).
_UNSET: Final[Mapping[str, str]] = {
    "DATA_DIR": "/app/backend/data",
    "STORAGE_PROVIDER": "local",
    "VECTOR_DB": "chroma",
}


def losses(before: Objects, after: Objects) -> tuple[Loss, ...]:
    """Return the data that going from `before` to `after` deletes, leaves to nobody or hides."""
    heirs = tuple(_heirs(before, after))
    found = (
        *_holders(before, after),
        *_claims(before, after),
        *_places(heirs),
        *_databases(heirs),
        *_secrets(before, after),
        *_unguarded(before, after),
    )
    return tuple(dict.fromkeys(found))


def of(manifests: Iterable[Manifest]) -> dict[Key, Manifest]:
    """Return objects by what identifies them."""
    return {key_of(manifest): manifest for manifest in manifests}


def is_kept(manifest: Manifest) -> bool:
    """Tell whether an object stays when its manifest goes."""
    return any(manifest.annotations.get(key) == value for key, value in KEPT)


# --- Claims -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim and who mounts it.

    Args:
        key: The claim.
        holder: The workload that mounts it.
    """

    key: Key
    holder: Manifest


def claims(objects: Objects) -> Iterator[Claim]:
    """Yield the claims that workloads mount: those that pods name, and those of StatefulSets."""
    for manifest in objects.values():
        if manifest.kind not in {"Deployment", "StatefulSet", "DaemonSet"}:
            continue
        for volume in pod_template(manifest)["spec"].get("volumes") or ():
            if name := (volume.get("persistentVolumeClaim") or {}).get("claimName"):
                yield Claim(_claim(manifest, name), manifest)
        for template in manifest["spec"].get("volumeClaimTemplates") or ():
            for number in range(manifest["spec"].get("replicas") or 1):
                name = f"{template['metadata']['name']}-{manifest.name}-{number}"
                yield Claim(_claim(manifest, name), manifest)


def _claim(holder: Manifest, name: str) -> Key:
    return "", "PersistentVolumeClaim", holder.namespace or None, name


def _claims(before: Objects, after: Objects) -> Iterator[Loss]:
    used, had = {claim.key for claim in claims(after)}, list(claims(before))
    for claim in had:
        key, was = claim.key, before.get(claim.key)
        if was is not None and key not in after and not is_kept(was):
            still = ", although a pod still names it" if key in used else ""
            yield Loss(key, Harm.DELETED, _GONE.format(still))
        elif key not in used:
            heir = successor(claim.holder, after)
            empty = f"; {heir.ref} begins with an empty volume" if heir else ""
            yield Loss(
                key, Harm.ORPHANED, f"nothing mounts what {claim.holder.ref} has on it{empty}"
            )
    for key in _gone(before, after, "PersistentVolumeClaim"):
        if key not in {claim.key for claim in had}:
            yield Loss(key, Harm.DELETED, _GONE.format(""))


_GONE = "no manifest has it any more{}: what is on it goes with it"


def _gone(before: Objects, after: Objects, *kinds: str) -> Iterator[Key]:
    """Yield the objects of these kinds that go, as nothing keeps them."""
    for key, manifest in before.items():
        if manifest.kind in kinds and key not in after and not is_kept(manifest):
            yield key


def _unguarded(before: Objects, after: Objects) -> Iterator[Loss]:
    """Yield the claims with data that the next change of a name would delete."""
    for key, manifest in after.items():
        if key[1] == "PersistentVolumeClaim" and key in before and not is_kept(manifest):
            yield Loss(
                key,
                Harm.UNGUARDED,
                "has no helm.sh/resource-policy: keep: an uninstall, or a release that names it "
                "otherwise, deletes what is on it",
            )


#: Kinds that take other objects along when they are deleted, and what.
_HOLDERS: Final[Mapping[str, str]] = {
    "Namespace": "everything in it goes with it, its volumes too",
    "CustomResourceDefinition": "every object of its kind goes with it, in all namespaces",
}


def _holders(before: Objects, after: Objects) -> Iterator[Loss]:
    for key in _gone(before, after, *_HOLDERS):
        yield Loss(key, Harm.DELETED, _HOLDERS[key[1]])


def successor(workload: Manifest, after: Objects) -> Manifest | None:
    """Return what stands for a workload afterwards: of its name, or of its pods' labels."""
    if (same := after.get(key_of(workload))) is not None:
        return same
    wanted = _selected(workload)
    return next(
        (
            m
            for m in after.values()
            if (m.kind, m.namespace) == (workload.kind, workload.namespace)
            and _selected(m) == wanted
        ),
        None,
    )


def _selected(workload: Manifest) -> Mapping[str, str]:
    if workload.kind not in {"Deployment", "StatefulSet", "DaemonSet"}:
        return {}
    labels: Mapping[str, str] = workload["spec"]["selector"].get("matchLabels") or {}
    return labels


# --- Where on the volume ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Heir:
    """A workload, what stands for it afterwards, and the variables of both."""

    earlier: Manifest
    later: Manifest
    was: Mapping[str, str]
    now: Mapping[str, str]

    def emptied(self, why: str) -> Loss:
        return Loss(key_of(self.later), Harm.EMPTIED, why)


def _heirs(before: Objects, after: Objects) -> Iterator[_Heir]:
    old, new = _release(before), _release(after)
    for manifest in before.values():
        heir = successor(manifest, after) if _selected(manifest) else None
        if heir is not None:
            yield _Heir(manifest, heir, environment(old, manifest), environment(new, heir))


def _places(heirs: Iterable[_Heir]) -> Iterator[Loss]:
    """Yield the workloads that look for their data under another name than they stored it."""
    for heir in heirs:
        was, now = heir.was, heir.now
        for name, meaning in PLACES.items():
            earlier, later = (one.get(name, _UNSET.get(name)) for one in (was, now))
            if earlier != later and (name in was or (earlier and name in now)):
                yield heir.emptied(f"{name} was {earlier!r} and becomes {later!r}: {meaning}")
        mounted, mounts = _data_mounts(heir.earlier), _data_mounts(heir.later)
        if mounted and mounts and mounted != mounts:
            yield heir.emptied(
                f"its volume was mounted at {', '.join(sorted(mounted))} and is mounted at "
                f"{', '.join(sorted(mounts))}: it does not find what is on it"
            )


def _data_mounts(workload: Manifest) -> frozenset[str]:
    """Return where a workload mounts its claims, with the folder of the volume if it names one."""
    spec = workload["spec"]
    names = {one["metadata"]["name"] for one in spec.get("volumeClaimTemplates") or ()}
    for volume in pod_template(workload)["spec"].get("volumes") or ():
        if volume.get("persistentVolumeClaim"):
            names.add(volume["name"])
    return frozenset(
        mount["mountPath"] + (f" (folder {mount['subPath']})" if mount.get("subPath") else "")
        for container in containers(workload)
        for mount in container.get("volumeMounts") or ()
        if mount["name"] in names
    )


def _release(objects: Objects) -> Mapping[str | None, Release]:
    """Return the objects as a release for each namespace, which resolves environments."""
    found: dict[str | None, list[Manifest]] = {}
    for manifest in objects.values():
        found.setdefault(manifest.namespace, []).append(manifest)
    return {
        namespace: Release("", namespace or "", "", tuple(manifests))
        for namespace, manifests in found.items()
    }


def environment(releases: Mapping[str | None, Release], workload: Manifest) -> dict[str, str]:
    """Return the variables of a workload's containers whose values are no secrets."""
    release = releases[workload.namespace]
    return {
        name: variable.value
        for container in containers(workload)
        for name, variable in release.env(container).items()
        if variable.value is not None
    }


def _databases(heirs: Iterable[_Heir]) -> Iterator[Loss]:
    """Yield the applications that afterwards use another database than the one with their data."""
    for heir in heirs:
        was, now = _database(heir.was, heir.earlier), _database(heir.now, heir.later)
        if was != now and (was or _data_mounts(heir.earlier)):
            shown = [" on ".join(one) if one else "a file on its volume" for one in (was, now)]
            yield heir.emptied(
                f"its database was {shown[0]} and becomes {shown[1]}: "
                "accounts, chats and documents stay in the old one"
            )


def _database(variables: Mapping[str, str], workload: Manifest) -> tuple[str, str] | None:
    """Return the database and its host that a workload is told to use, None without one."""
    url = urlsplit(variables.get("DATABASE_URL", ""))
    if not url.scheme.startswith("postgres"):
        return None
    # A password that is not a URL, such as $(DATABASE_PASSWORD), may stand before the last @.
    host = url.netloc.rpartition("@")[2].partition(":")[0]
    service, _, rest = host.partition(".")
    space = rest.split(".")[0] or workload.namespace or ""
    # What follows the first label of a Service is nothing, its namespace, or that and svc.
    is_service = rest.split(".")[1:2] in ([], ["svc"])
    return url.path.lstrip("/"), f"{service}.{space}" if is_service else host


# --- Secrets ------------------------------------------------------------------------------------


def _secrets(before: Objects, after: Objects) -> Iterator[Loss]:
    """Yield the Secrets with values of their own that go, and that nobody makes again."""
    made = {secret_of(m) for m in after.values() if m.kind == "ExternalSecret"}
    for key in _gone(before, after, "Secret"):
        if key not in made:
            parts = (before[key].get(part) or {} for part in ("data", "stringData"))
            names = ", ".join(sorted({name for part in parts for name in part}))
            yield Loss(key, Harm.DELETED, f"nothing makes one of this name again: {names}")


#: Keys of which another value than the present one does harm, and what.
VITAL: Final[Mapping[str, str]] = {
    "postgres-password": "PostgreSQL keeps the present one, and the application cannot log in",
    "webui-secret-key": "everybody is signed out, and stored credentials cannot be read any more",
}


def moved_secrets(before: Objects, after: Objects) -> Iterator[str]:
    """Yield the vital keys that are read from another place of the store than before."""
    was, now = _remotes(before), _remotes(after)
    for (secret, key), remote in now.items():
        earlier = was.get((secret, key))
        if earlier and earlier != remote and key in VITAL:
            yield (
                f"Secret/{secret[3]} in {secret[2]}: {key} comes from {remote} instead of "
                f"{earlier}: if that is another value, {VITAL[key]}"
            )


def _remotes(objects: Objects) -> dict[tuple[Key, str], str]:
    """Return the remote key of each key of the Secrets that External Secrets makes."""
    return {
        (secret_of(manifest), entry["secretKey"]): entry["remoteRef"]["key"]
        for manifest in objects.values()
        if manifest.kind == "ExternalSecret"
        for entry in manifest["spec"].get("data") or ()
    }


def secret_of(external: Manifest) -> Key:
    """Return the Secret that an ExternalSecret makes."""
    return "", "Secret", external.namespace or None, target_secret(external)


def refusals(
    before: Objects, after: Objects, *, server_side: bool = False
) -> dict[Key, tuple[str, ...]]:
    """Return, of each object that changes, the fields that Kubernetes refuses to change."""
    return {
        key: fields
        for key, manifest in after.items()
        if key in before and (fields := refused(before[key], manifest, server_side=server_side))
    }
