"""Which ConfigMaps and Secrets pods use: mounted, in their environment, or to pull their images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from .manifests import WORKLOAD_KINDS, Manifest, containers, key_of, pod_spec


@dataclass(frozen=True, slots=True)
class Use:
    """That a pod uses a ConfigMap or Secret; key "" is the whole."""

    kind: str
    name: str
    key: str
    path: str
    """Where the pod says so."""
    optional: bool = False
    mounted: bool = True
    """As a file, and not as a variable: a change of it reaches a pod that runs."""


_MOUNTED = (("ConfigMap", "configMap", "name"), ("Secret", "secret", "secretName"))


@lru_cache(maxsize=100_000)
def uses(workload: Manifest) -> tuple[Use, ...]:
    """Return what the pods of a workload use; nothing for what makes no pods."""
    return tuple(_uses(workload)) if workload.kind in WORKLOAD_KINDS else ()


def _uses(workload: Manifest) -> Iterator[Use]:
    spec = pod_spec(workload)
    for secret in spec.get("imagePullSecrets") or ():
        yield Use("Secret", secret["name"], "", "imagePullSecrets")
    for volume in spec.get("volumes") or ():
        path = f"volumes[{volume['name']}]"
        for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            for kind, field_name, name_field in _MOUNTED:
                part = source.get(field_name) or {}
                keys = [item["key"] for item in part.get("items") or ()]
                name, optional = part.get(name_field) or part.get("name"), part.get("optional")
                for key in (keys or [*_sub_paths(workload, volume["name"]), ""]) if part else ():
                    yield Use(kind, name or "", key, path, bool(optional))
    for container in containers(workload):
        where = f"containers[{container['name']}]"
        for entry in container.get("env") or ():
            if ref := key_of(entry.get("valueFrom") or {}):
                path = f"{where}.env[{entry['name']}]"
                yield Use(ref.kind, ref.name, ref.key, path, ref.optional, mounted=False)
        for entry in container.get("envFrom") or ():
            for kind, field_name in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if part := entry.get(field_name):
                    name, optional = part.get("name", ""), bool(part.get("optional"))
                    yield Use(kind, name, "", f"{where}.envFrom", optional, mounted=False)


def named(m: Manifest) -> Iterator[tuple[str, str]]:
    """Yield kind and name of what a pod refers to: its account, ConfigMaps and claims."""
    spec = pod_spec(m)
    if spec:
        yield "ServiceAccount", str(spec.get("serviceAccountName"))
    yield from ((use.kind, use.name) for use in uses(m) if use.kind == "ConfigMap")
    for volume in spec.get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            yield "PersistentVolumeClaim", claim.get("claimName", "")


def _sub_paths(workload: Manifest, volume: str) -> Iterator[str]:
    for container in containers(workload):
        for mount in container.get("volumeMounts") or ():
            if mount["name"] == volume and mount.get("subPath"):
                yield mount["subPath"]
