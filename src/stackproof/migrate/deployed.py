"""A release as it runs: what Helm remembers of it, and what the cluster says beside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from stackproof.errors import StackproofError
from stackproof.flux.objects import Key
from stackproof.helm.manifests import CLUSTER_KINDS, Manifest, target_secret, thaw
from stackproof.helm.podsecurity import LABEL
from stackproof.helmyaml import reading
from stackproof.kube.client import Kube, decoded

_KEEP = "helm.sh/resource-policy"
_ON_GKE = "cloud.google.com/gke-nodepool"
#: DaemonSets that enforce NetworkPolicies on GKE: Dataplane V2, or else Calico, which a Standard
#: cluster has only if asked (docs.cloud.google.com/kubernetes-engine/docs/how-to/network-policy).
_ENFORCERS = ("anetd", "calico-node")
_ASK_REVISION = (
    'psql --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --no-align --tuples-only '
    '--command="select version_num from alembic_version"'
)


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A release of the chart.

    Args:
        name: The release.
        namespace: Where it is.
        status: What Helm says of it: `deployed`, unless an upgrade runs or failed.
        manifests: What it applied, without hooks.
        values: What was given to the chart.
        secrets: SHA-256 of the values in its Secrets, by namespace, name and key, as they are now.
        store: SHA-256 of what is known of the secret store, by remote key; None if nothing is.
        ingresses: Ingresses of the cluster that are not the release's.
        level: The pod security level that its namespace enforces; "" where that is not known.
        revision: The newest migration that the application's database has; None if not known.
        server_side: Whether Helm applied it last by server-side apply; None if not known.
        enforced: Whether the network of every node enforces NetworkPolicies; None if not known.
    """

    name: str
    namespace: str
    status: str
    manifests: tuple[Manifest, ...]
    values: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[Key, Mapping[str, str]] = field(default_factory=dict)
    store: Mapping[str, str] | None = None
    ingresses: tuple[Manifest, ...] = ()
    level: str = ""
    revision: str | None = None
    server_side: bool | None = None
    enforced: bool | None = None


def digest(value: str | bytes) -> str:
    """Return what stands for a secret value: its SHA-256, in hexadecimal digits."""
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).hexdigest()


def from_files(
    manifest: Path, values: Path | None = None, *, release: str, namespace: str
) -> Deployed:
    """Read a release from what `helm get manifest` and `helm get values` print.

    Raises:
        StackproofError: A file cannot be read, or is not valid YAML.
    """
    with reading(str(manifest)):
        found = _manifests(manifest.read_text(encoding="utf-8"), namespace, str(manifest))
    given = _yaml(values) if values else {}
    return Deployed(
        name=release,
        namespace=namespace,
        status="deployed",
        manifests=found,
        values=given or {},
        secrets=_digests(found),
    )


def from_cluster(kube: Kube, *, release: str, namespace: str) -> Deployed:
    """Read a release from its cluster: Helm's own record, the live Secrets, Ingresses and database.

    Raises:
        StackproofError: There is no such release, or it may not be read.
    """
    records = kube.listed("v1", "Secret", namespace, f"owner=helm,name={release}")
    if not records:
        raise StackproofError(
            f"there is no Helm release {release} in namespace {namespace}",
            where=kube.where,
            todo="`helm list --all-namespaces` shows what there is.",
        )
    newest = max(records, key=lambda one: int(one["metadata"]["labels"]["version"]))
    record = decoded(newest["data"]["release"])
    rendered = _manifests(record["manifest"], namespace, f"release {release}")
    found = tuple(_as_it_is(kube, manifest) for manifest in rendered)
    return Deployed(
        name=release,
        namespace=namespace,
        status=record["info"]["status"],
        manifests=found,
        values=record.get("config") or {},
        secrets=_digests(found) | _live(kube, found),
        store=_synced(kube),
        ingresses=_others(kube, found),
        level=_level(kube, namespace),
        revision=_revision(kube, namespace),
        # Helm 3 does not record it, and has no other way than from the client.
        server_side=record.get("apply_method") == "ssa",
        enforced=_enforced(kube),
    )


def read_store(file: Path) -> dict[str, str]:
    """Read what is in the secret store: a map of remote key to value, or to sha256:DIGEST.

    Raises:
        StackproofError: The file cannot be read, or is no such map.
    """
    given = _yaml(file)
    if not isinstance(given, dict):
        raise StackproofError("must be a map of remote key to value", where=str(file))
    values = {str(key): str(value) for key, value in given.items()}
    return {
        key: value.removeprefix("sha256:").strip() if value.startswith("sha256:") else digest(value)
        for key, value in values.items()
    }


def _yaml(file: Path) -> Any:
    with reading(str(file)):
        return yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)


def _manifests(text: str, namespace: str, source: str) -> tuple[Manifest, ...]:
    with reading(source):
        documents = [one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one]
    found = []
    for number, content in enumerate(documents):
        if not isinstance(content, dict) or "kind" not in content:
            raise StackproofError("has a document that is no object", where=source)
        if content["kind"] not in CLUSTER_KINDS:
            content["metadata"].setdefault("namespace", namespace)
        found.append(Manifest.of(content, source, number))
    if not found:
        raise StackproofError(
            "holds no object", where=source, todo="It must be what `helm get manifest` prints."
        )
    return tuple(manifest for manifest in found if not manifest.is_hook)


def _digests(manifests: Iterable[Manifest]) -> dict[Key, Mapping[str, str]]:
    return {
        ("", "Secret", m.namespace, m.name): _values(m) for m in manifests if m.kind == "Secret"
    }


def _values(secret: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests of a Secret's values."""
    data = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
    plain = {key: str(value).encode() for key, value in (secret.get("stringData") or {}).items()}
    return {key: digest(value) for key, value in {**data, **plain}.items()}


def _as_it_is(kube: Kube, manifest: Manifest) -> Manifest:
    """Return an object with the annotation that makes Helm keep it, if somebody gave it one."""
    if manifest.kind not in {"PersistentVolumeClaim", "Secret"}:
        return manifest
    live = kube.find(manifest.api_version, manifest.kind, manifest.name, manifest.namespace)
    policy = ((live or {}).get("metadata", {}).get("annotations") or {}).get(_KEEP)
    if policy is None:
        return manifest
    content = thaw(manifest.content)
    content["metadata"].setdefault("annotations", {})[_KEEP] = policy
    return Manifest.of(content, manifest.source, manifest.index)


def _live(kube: Kube, manifests: Iterable[Manifest]) -> dict[Key, Mapping[str, str]]:
    """Return the digests of the Secrets as they are, which the values in Git may not be."""
    found: dict[Key, Mapping[str, str]] = {}
    for manifest in manifests:
        if manifest.kind in {"Secret", "ExternalSecret"}:
            external = manifest.kind == "ExternalSecret"
            name = target_secret(manifest) if external else manifest.name
            if live := kube.find("v1", "Secret", name, manifest.namespace):
                found["", "Secret", manifest.namespace, name] = _values(live)
    return found


def _synced(kube: Kube) -> dict[str, str] | None:
    """Return what External Secrets has fetched for anybody: that is what the store holds."""
    found: dict[str, str] = {}
    for external in kube.listed("external-secrets.io/v1", "ExternalSecret"):
        namespace = external["metadata"]["namespace"]
        secret = kube.find("v1", "Secret", target_secret(external), namespace)
        values = _values(secret) if secret else {}
        for entry in external["spec"].get("data") or ():
            if entry["secretKey"] in values and not entry["remoteRef"].get("property"):
                found[entry["remoteRef"]["key"]] = values[entry["secretKey"]]
    return found or None


def _level(kube: Kube, namespace: str) -> str:
    labels = kube.get("v1", "Namespace", namespace)["metadata"].get("labels") or {}
    return str(labels.get(LABEL, ""))


def _others(kube: Kube, own: Iterable[Manifest]) -> tuple[Manifest, ...]:
    mine = {(m.namespace, m.name) for m in own if m.kind == "Ingress"}
    return tuple(
        Manifest.of(one, kube.where)
        for one in kube.listed("networking.k8s.io/v1", "Ingress")
        if (one["metadata"]["namespace"], one["metadata"]["name"]) not in mine
    )


def _enforced(kube: Kube) -> bool | None:
    """Return whether every node enforces NetworkPolicies; None where it is no node of GKE."""
    nodes = kube.listed("v1", "Node")
    if not any(_ON_GKE in (node["metadata"].get("labels") or {}) for node in nodes):
        return None
    return any(
        one["metadata"]["name"] in _ENFORCERS
        and one["status"]["desiredNumberScheduled"] >= len(nodes)
        for one in kube.listed("apps/v1", "DaemonSet", "kube-system")
    )


def _revision(kube: Kube, namespace: str) -> str | None:
    """Return the newest migration of the application's database, None where nobody answers."""
    for pod in kube.pods(namespace, "app.kubernetes.io/component=postgres"):
        try:
            asked = ["sh", "-c", _ASK_REVISION]
            said = kube.execute(pod["metadata"]["name"], namespace, "postgres", asked).strip()
        except StackproofError:
            continue
        if said.isalnum():
            return said
    return None
