"""Pods: what they may, what they need, how they are asked whether they are well."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stackproof.helm import podsecurity
from stackproof.helm.externals import Rendered
from stackproof.helm.manifests import (
    WORKLOAD_KINDS,
    Manifest,
    amount,
    at,
    claims,
    lasting,
    pod_spec,
)

from .base import INVARIANTS, LONG_RUNNING, of_each_container, of_each_object


@INVARIANTS.register
@of_each_object
def restricted_pod_security(m: Manifest) -> Iterator[str]:
    """Every pod meets the restricted Pod Security Standard, its init containers too."""
    if m.kind in WORKLOAD_KINDS:
        yield from podsecurity.refusals("restricted", m)


@INVARIANTS.register
@of_each_container
def read_only_root_has_a_place_to_write(container: Mapping[str, Any]) -> Iterator[str]:
    """A container with a read-only root file system has a writable /tmp."""
    mounts = container.get("volumeMounts") or ()
    if at(container, "securityContext.readOnlyRootFilesystem") and not any(
        one["mountPath"] == "/tmp" and not one.get("readOnly")  # noqa: S108
        for one in mounts
    ):
        yield f"container {container['name']} can write nowhere: no volume at /tmp"


@INVARIANTS.register
@of_each_object
def volumes_of_the_pod_can_be_written(m: Manifest) -> Iterator[str]:
    """A pod with a claim has an fsGroup, applied only where needed: a fresh volume is root's."""
    spec = pod_spec(m)
    mounted = any("persistentVolumeClaim" in v for v in spec.get("volumes") or ())
    if not mounted and not (spec and claims(m)):
        return
    security = spec.get("securityContext") or {}
    if security.get("fsGroup") is None:
        yield "mounts a claim without an fsGroup: it could not write there"
    if security.get("fsGroupChangePolicy") != "OnRootMismatch":
        yield "changes the owner of every file of its volume at each start (fsGroupChangePolicy)"


@INVARIANTS.register
@of_each_container
def resources_set(container: Mapping[str, Any]) -> Iterator[str]:
    """Every container asks for cpu and memory and has a memory limit, no less than it asks for."""
    for needed in ("requests.cpu", "requests.memory", "limits.memory"):
        if not at(container, f"resources.{needed}"):
            yield f"container {container['name']} has no resources.{needed}"
    requests, limits = (at(container, f"resources.{kind}") or {} for kind in ("requests", "limits"))
    for name in sorted(requests.keys() & limits.keys()):
        if requests[name] and limits[name] and amount(requests[name]) > amount(limits[name]):
            yield f"container {container['name']} asks for more {name} than its limit"


@INVARIANTS.register
@of_each_object
def jobs_can_end(m: Manifest) -> Iterator[str]:
    """No Job starts its pod for ever, and a CronJob's policy exists: the API server insists."""
    if m.kind in {"Job", "CronJob"}:
        policy = pod_spec(m).get("restartPolicy")
        if policy not in {"OnFailure", "Never"}:
            yield f"restartPolicy is {policy}, must be OnFailure or Never"
        together = m["spec"].get("concurrencyPolicy", "Allow")
        if together not in {"", "Allow", "Forbid", "Replace"}:
            yield f"concurrencyPolicy is {together}, must be Allow, Forbid or Replace"


@INVARIANTS.register
@of_each_object
def probes_on_long_running_containers(m: Manifest) -> Iterator[str]:
    """Every long-running container says when it is ready, and when it is dead."""
    if m.kind not in LONG_RUNNING:
        return
    for container in pod_spec(m).get("containers") or ():
        for probe in ("readinessProbe", "livenessProbe"):
            if not container.get(probe):
                yield f"container {container['name']} has no {probe}"


@INVARIANTS.register
@of_each_container
def probes_are_patient(container: Mapping[str, Any]) -> Iterator[str]:
    """A container is killed later than it stops getting requests, and not within 30 seconds."""
    ready, alive = (lasting(container.get(f"{p}Probe")) for p in ("readiness", "liveness"))
    if ready and alive and alive <= ready:
        yield (
            f"container {container['name']} is killed after {alive} s, must be later than it is "
            f"unready, after {ready} s"
        )
    if alive and alive < _KILLED_AFTER_S:
        yield (
            f"container {container['name']} is killed after {alive} s of silence, must be "
            f"{_KILLED_AFTER_S} s or more"
        )


_KILLED_AFTER_S = 30


@INVARIANTS.register
@of_each_container
def probes_ask_in_one_way(container: Mapping[str, Any]) -> Iterator[str]:
    """Every probe asks in exactly one way: the API server refuses others, no schema says so."""
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        found = container.get(probe)
        ways = {"httpGet", "tcpSocket", "exec", "grpc"} & set(found or ())
        if found is not None and len(ways) != 1:
            yield f"container {container['name']}: {probe} asks in {len(ways)} ways, must be one"


@INVARIANTS.register
@of_each_container
def ports_are_what_variables_say(container: Mapping[str, Any]) -> Iterator[str]:
    """A variable NAME_PORT is the number of the container's port of that name."""
    numbers = {v["name"]: v.get("value") for v in container.get("env") or ()}
    for port in container.get("ports") or ():
        wanted = str(port["containerPort"])
        name = str(port.get("name")).upper().replace("-", "_")
        for variable, number in numbers.items():
            if re.fullmatch(rf"(GF_SERVER_)?{name}_PORT", variable) and number != wanted:
                named = f"the port {port['name']} is {wanted}"
                yield f"container {container['name']}: {variable} is {number}, {named}"


_MOVING = {"latest", "main", "master", "edge", "dev", "nightly", "stable", "head", "canary"}
_IMAGE = re.compile(
    r"(?P<name>[^@\s]+?)(?::(?P<tag>[\w][\w.-]*))?(?P<digest>@sha256:[0-9a-f]{64})?"
)


@INVARIANTS.register
@of_each_container
def images_pinned(container: Mapping[str, Any]) -> Iterator[str]:
    """Every image has a digest, or a tag that does not move and an imagePullPolicy."""
    image = str(container.get("image") or "")
    parts = _IMAGE.fullmatch(image)
    if parts is None:
        yield f"container {container['name']}: {image!r} is no image"
    elif not parts["digest"]:
        if parts["tag"] is None or parts["tag"].lower() in _MOVING:
            yield f"container {container['name']}: {image} is not pinned"
        if container.get("imagePullPolicy") not in {"IfNotPresent", "Always", "Never"}:
            yield f"container {container['name']} has no imagePullPolicy"


@INVARIANTS.register
def tokens_only_where_rights_are(rendered: Rendered) -> Iterator[str]:
    """A pod gets a token of the Kubernetes API exactly if a role is bound to its account."""
    release = rendered.release
    bound = {
        subject["name"]
        for binding in release.of_kind("RoleBinding", "ClusterRoleBinding")
        for subject in binding.get("subjects") or ()
        if subject.get("kind") == "ServiceAccount"
    }
    for m in release.of_kind(*WORKLOAD_KINDS, "Pod"):
        spec = pod_spec(m)
        account = spec.get("serviceAccountName", "default")
        mounted = spec.get("automountServiceAccountToken") is not False
        if mounted and account not in bound:
            yield f"{m.source}: {m.ref} gets a token of {account}, which no role is bound to"
        if not mounted and account in bound:
            yield f"{m.source}: {m.ref} needs the token of {account}, and does not get it"
    for m in release.of_kind("ServiceAccount"):
        if m.get("automountServiceAccountToken") is not False:
            yield f"{m.source}: {m.ref} gives its token to every pod (automountServiceAccountToken)"


@INVARIANTS.register
@of_each_object
def no_service_links(m: Manifest) -> Iterator[str]:
    """No pod gets variables of every Service: they collide with the programs' own names."""
    spec = pod_spec(m)
    if spec and spec.get("enableServiceLinks") is not False:
        yield "enableServiceLinks is not false"
