"""Volumes: data is on one, can be written, and outlives its workload."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stackproof.helm.externals import Rendered
from stackproof.helm.manifests import Manifest, at, claims, containers, pod_spec

from .base import INVARIANTS, of_each_container, of_each_object

_PATH = re.compile(r"(/[\w.-]+)+")
_DIRECTORY = re.compile(r"\w*(DIR|PATH|HOME|PGDATA)|GF_PATHS_\w+")


@INVARIANTS.register
@of_each_container
def directories_are_in_volumes(container: Mapping[str, Any]) -> Iterator[str]:
    """A variable that names a directory names one in a volume of the container, or above one."""
    mounts = [mount["mountPath"] for mount in container.get("volumeMounts") or ()]
    for variable in container.get("env") or ():
        name, path = variable["name"], str(variable.get("value") or "")
        if not _DIRECTORY.fullmatch(name) or not _PATH.fullmatch(path):
            continue
        if not any(
            f"{path}/".startswith(f"{m}/") or f"{m}/".startswith(f"{path}/") for m in mounts
        ):
            yield f"container {container['name']}: {name} is {path}, where no volume is mounted"


@INVARIANTS.register
@of_each_object
def volumes_are_what_they_can_be(m: Manifest) -> Iterator[str]:
    """Claims say how they are mounted; configuration is read-only; memory as a disk is bounded."""
    for claim in claims(m):
        if not claim["spec"].get("accessModes"):
            yield "a claim has no accessModes"
        if not at(claim, "spec.resources.requests.storage"):
            yield "a claim asks for no storage"
    spec = pod_spec(m)
    fixed = {v["name"] for v in spec.get("volumes") or () if {"configMap", "secret"} & v.keys()}
    for volume in spec.get("volumes") or ():
        disk = volume.get("emptyDir") or {}
        if disk.get("medium", "") not in {"", "Memory"}:
            yield f"the volume {volume['name']} is of no medium that there is: {disk['medium']}"
        if disk.get("medium") == "Memory" and not disk.get("sizeLimit"):
            yield f"the volume {volume['name']} may take all the memory (sizeLimit)"
    for container in containers(m):
        for mount in container.get("volumeMounts") or ():
            if mount["name"] in fixed and mount.get("readOnly") is not True:
                yield f"container {container['name']}: {mount['name']} is not mounted readOnly"


@INVARIANTS.register
@of_each_object
def data_outlives_its_workload(m: Manifest) -> Iterator[str]:
    """No StatefulSet deletes its claims, and no claim that a chart makes goes with its release."""
    if m.kind == "PersistentVolumeClaim" and m.annotations.get("helm.sh/resource-policy") != "keep":
        yield "is deleted with the release (helm.sh/resource-policy)"
    if m.kind == "StatefulSet":
        retention = m["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
        for when in ("whenDeleted", "whenScaled"):
            if retention.get(when, "Retain") != "Retain":
                yield f"deletes its data ({when})"


@INVARIANTS.register
def one_writer_for_each_volume(rendered: Rendered) -> Iterator[str]:
    """A claim that one node can mount has one pod, and a new pod waits for the old one's end."""
    for m in rendered.release.of_kind("Deployment"):
        for volume in pod_spec(m).get("volumes") or ():
            name = at(volume, "persistentVolumeClaim.claimName")
            claim = rendered.release.find("PersistentVolumeClaim", name) if name else None
            if claim is None or "ReadWriteMany" in claim["spec"]["accessModes"]:
                continue
            if at(m, "spec.strategy.type") != "Recreate":
                yield f"{m.source}: {m.ref}: two pods at once could not both mount {name}"
            if m["spec"].get("replicas", 1) != 1:
                yield f"{m.source}: {m.ref}: its replicas cannot all mount {name}"
