"""What must hold for one render of any chart, whatever its values: no check knows a chart.

Verdicts on single objects are kept by content, so that thousands of renders which share most of
their objects cost little more than the objects that differ.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, wraps
from typing import Any

import yaml

from stackproof import schema
from stackproof.checks import Checks, credentials, network
from stackproof.manifests import WORKLOAD_KINDS, Manifest, amount, containers, pod_template
from stackproof.references import matches
from stackproof.surroundings import Rendered

INVARIANTS: Checks[Rendered] = Checks()

Finder = Callable[[Rendered], Iterator[str]]


def _of_each_object(find: Callable[[Manifest], Iterator[str]]) -> Finder:
    """Make a check of a release from one of a single object, whose verdict is kept by content."""
    known: dict[str, tuple[str, ...]] = {}

    @wraps(find)
    def of_release(rendered: Rendered) -> Iterator[str]:
        for manifest in rendered.release:
            found = known.get(manifest.digest)
            if found is None:
                found = known[manifest.digest] = tuple(find(manifest))
            for problem in found:
                yield f"{manifest.source}: {manifest.ref}: {problem}"

    return of_release


def _pod_spec(manifest: Manifest) -> Mapping[str, Any] | None:
    """Return the pod's spec of anything that makes pods, or of a pod."""
    if manifest.kind == "Pod":
        spec: Mapping[str, Any] = manifest["spec"]
        return spec
    return pod_template(manifest)["spec"] if manifest.kind in WORKLOAD_KINDS else None


def _containers(spec: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    return (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))


# --- Objects ------------------------------------------------------------------------------------


@INVARIANTS.register
def schema_valid(rendered: Rendered) -> Iterator[str]:
    """Every object is valid for the oldest and the newest Kubernetes."""
    for version in rendered.kubernetes:
        for problem in schema.validate(rendered.release, version, rendered.schemas):
            yield f"Kubernetes {version}: {problem}"


@INVARIANTS.register
def names_unique(rendered: Rendered) -> Iterator[str]:
    """No two objects of a release are the same one: the second would replace the first."""
    named = Counter((m.api_version, m.kind, m.namespace, m.name) for m in rendered.release)
    for (_, kind, _, name), times in named.items():
        if times > 1:
            yield f"{kind}/{name} is rendered {times} times"


@INVARIANTS.register
def in_the_release_namespace(rendered: Rendered) -> Iterator[str]:
    """Every namespaced object is in the release's namespace: a tenant's chart touches no other."""
    for m in rendered.release:
        if m.namespace not in (None, rendered.release.namespace):
            yield f"{m.source}: {m.ref} is in the namespace {m.namespace}"


@INVARIANTS.register
def no_undeclared_cluster_scope(rendered: Rendered) -> Iterator[str]:
    """No object is cluster-scoped unless the chart's externals.yaml says that it makes it."""
    for m in rendered.release:
        if m.namespace is None and (m.kind, m.name) not in rendered.cluster_scoped:
            yield f"{m.source}: {m.ref} is cluster-scoped: a second release would collide with it"


_REQUIRED_LABELS = ("name", "instance", "component", "managed-by")


@INVARIANTS.register
def labels_consistent(rendered: Rendered) -> Iterator[str]:
    """Objects and pods carry the recommended labels, and they agree with each other."""
    release = rendered.release
    wanted = {"instance": release.name, "managed-by": "Helm"}
    for m in release:
        labels = {key: m.labels.get(f"app.kubernetes.io/{key}") for key in _REQUIRED_LABELS}
        for key, value in labels.items():
            if value is None:
                yield f"{m.source}: {m.ref} has no label app.kubernetes.io/{key}"
            elif value != wanted.get(key, value):
                yield f"{m.source}: {m.ref}: app.kubernetes.io/{key} is {value}, not {wanted[key]}"
        for key, value in _pod_labels(m).items():
            short = key.removeprefix("app.kubernetes.io/")
            if short in _REQUIRED_LABELS[:3] and value != labels[short]:
                yield f"{m.source}: {m.ref}: its pods say {key}={value}, itself {labels[short]}"


def _pod_labels(m: Manifest) -> Mapping[str, str]:
    if m.kind not in WORKLOAD_KINDS:
        return {}
    return (pod_template(m).get("metadata") or {}).get("labels") or {}


# --- References ---------------------------------------------------------------------------------

_BY_SELECTOR = {"selector", "service", "policy"}


@INVARIANTS.register
def references_resolve(rendered: Rendered) -> Iterator[str]:
    """Every ConfigMap, Secret key, claim, account, Service and port that is named is there."""
    yield from (str(p) for p in rendered.dangling if p.check not in _BY_SELECTOR)


@INVARIANTS.register
def selectors_match(rendered: Rendered) -> Iterator[str]:
    """Services, budgets and policies select pods; each workload selects its own, and no other's."""
    yield from (str(p) for p in rendered.dangling if p.check in _BY_SELECTOR)
    workloads = [m for m in rendered.release.workloads() if "selector" in m["spec"]]
    for m in workloads:
        wanted = (m["spec"]["selector"] or {}).get("matchLabels") or {}
        for other in rendered.release.workloads():
            if other is not m and wanted.items() <= _pod_labels(other).items():
                yield f"{m.source}: {m.ref} selects the pods of {other.ref} as well"
    for service in rendered.release.services():
        chosen = service["spec"].get("selector") or {}
        found = [m.ref for m in workloads if chosen and chosen.items() <= _pod_labels(m).items()]
        if len(found) > 1:
            yield f"{service.source}: {service.ref} sends to {' and '.join(found)}"


@INVARIANTS.register
def every_pod_is_reached_by_its_service_ports(rendered: Rendered) -> Iterator[str]:
    """Every port that a container names is a port of a Service, if a Service selects its pod."""
    for m in rendered.release.workloads():
        labels = _pod_labels(m)
        served: set[str] = set()
        for service in rendered.release.services():
            selector = service["spec"].get("selector") or {}
            if selector and selector.items() <= labels.items():
                ports = service["spec"].get("ports") or ()
                served |= {str(port.get("targetPort", port["port"])) for port in ports}
        for container in containers(m) if served else ():
            for port in container.get("ports") or ():
                if not {port.get("name"), str(port["containerPort"])} & served:
                    yield f"{m.source}: {m.ref}: no Service has the port {port.get('name')}"


@INVARIANTS.register
def nothing_is_made_in_vain(rendered: Rendered) -> Iterator[str]:
    """Every PersistentVolumeClaim, ConfigMap and ServiceAccount that is made is used by a pod."""
    release = rendered.release
    used = {ref for m in release for ref in _uses(m)}
    for m in release.of_kind("PersistentVolumeClaim", "ConfigMap", "ServiceAccount"):
        if (m.kind, m.name) not in used:
            yield f"{m.source}: {m.ref} is used by nothing"


@lru_cache(maxsize=100_000)
def _uses(m: Manifest) -> frozenset[tuple[str, str]]:
    spec = _pod_spec(m)
    if spec is None:
        return frozenset()
    found = {("ServiceAccount", str(spec.get("serviceAccountName")))}
    for volume in spec.get("volumes") or ():
        for kind, key, name in (
            ("ConfigMap", "configMap", "name"),
            ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
        ):
            if volume.get(key):
                found.add((kind, volume[key].get(name, "")))
    for container in _containers(spec):
        for entry in container.get("envFrom") or ():
            if entry.get("configMapRef"):
                found.add(("ConfigMap", entry["configMapRef"]["name"]))
        for variable in container.get("env") or ():
            key_ref = (variable.get("valueFrom") or {}).get("configMapKeyRef")
            if key_ref:
                found.add(("ConfigMap", key_ref["name"]))
    return frozenset(found)


# --- Pods ---------------------------------------------------------------------------------------

_ADDABLE = {"NET_BIND_SERVICE"}
_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


@INVARIANTS.register
@_of_each_object
def restricted_pod_security(m: Manifest) -> Iterator[str]:
    """Every pod meets the restricted Pod Security Standard, its init containers too."""
    spec = _pod_spec(m)
    if spec is None:
        return
    for host in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(host):
            yield f"{host} is set"
    for volume in spec.get("volumes") or ():
        for kind in sorted(volume.keys() - {"name"} - _VOLUMES):
            yield f"the volume {volume['name']} is a {kind}"
    pod = spec.get("securityContext") or {}
    for container in _containers(spec):
        own = container.get("securityContext") or {}
        yield from (f"container {container['name']}: {p}" for p in _insecure(pod, own, container))


def _insecure(
    pod: Mapping[str, Any], own: Mapping[str, Any], container: Mapping[str, Any]
) -> Iterator[str]:
    if own.get("privileged"):
        yield "is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    if own.get("runAsUser", pod.get("runAsUser")) == 0:
        yield "runs as root"
    profile = own.get("seccompProfile") or pod.get("seccompProfile") or {}
    if profile.get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "has no seccompProfile"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        yield "does not drop ALL capabilities"
    for added in sorted(set(capabilities.get("add") or ()) - _ADDABLE):
        yield f"adds the capability {added}"
    for port in container.get("ports") or ():
        if port.get("hostPort"):
            yield f"takes the node's port {port['hostPort']}"


@INVARIANTS.register
@_of_each_object
def read_only_root_has_a_place_to_write(m: Manifest) -> Iterator[str]:
    """A container with a read-only root file system has a writable /tmp."""
    for container in _containers(_pod_spec(m) or {}):
        if not (container.get("securityContext") or {}).get("readOnlyRootFilesystem"):
            continue
        mounts = container.get("volumeMounts") or ()
        if not any(one["mountPath"] == "/tmp" and not one.get("readOnly") for one in mounts):  # noqa: S108
            yield f"container {container['name']} can write nowhere: no volume at /tmp"


@INVARIANTS.register
@_of_each_object
def volumes_of_the_pod_can_be_written(m: Manifest) -> Iterator[str]:
    """A pod with a claim has an fsGroup: a fresh volume belongs to root, which it is not."""
    spec = _pod_spec(m)
    if spec is None:
        return
    claims = m["spec"].get("volumeClaimTemplates") if m.kind == "StatefulSet" else None
    if not claims and not any("persistentVolumeClaim" in v for v in spec.get("volumes") or ()):
        return
    security = spec.get("securityContext") or {}
    if security.get("fsGroup") is None:
        yield "mounts a claim without an fsGroup: it could not write there"
    if security.get("fsGroupChangePolicy") != "OnRootMismatch":
        yield "changes the owner of every file of its volume at each start (fsGroupChangePolicy)"


@INVARIANTS.register
@_of_each_object
def pods_do_not_name_the_charts_version(m: Manifest) -> Iterator[str]:
    """A new version of the chart alone replaces no pod: where Flux deploys, each commit is one."""
    if m.kind in WORKLOAD_KINDS and "helm.sh/chart" in _pod_labels(m):
        yield "its pods are labelled helm.sh/chart: each version of the chart replaces them"


@INVARIANTS.register
@_of_each_object
def resources_set(m: Manifest) -> Iterator[str]:
    """Every container asks for cpu and memory and has a memory limit, no less than it asks for."""
    for container in _containers(_pod_spec(m) or {}):
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for where, amounts, names in (
            ("requests", requests, ("cpu", "memory")),
            ("limits", limits, ("memory",)),
        ):
            for name in names:
                if not amounts.get(name):
                    yield f"container {container['name']} has no resources.{where}.{name}"
        for name in sorted(requests.keys() & limits.keys()):
            if requests[name] and limits[name] and amount(requests[name]) > amount(limits[name]):
                yield f"container {container['name']} asks for more {name} than its limit"


@INVARIANTS.register
@_of_each_object
def jobs_can_end(m: Manifest) -> Iterator[str]:
    """The pod of a Job does not start again for ever: the API server refuses one that does."""
    if m.kind in {"Job", "CronJob"}:
        policy = (_pod_spec(m) or {}).get("restartPolicy")
        if policy not in {"OnFailure", "Never"}:
            yield f"restartPolicy is {policy}, must be OnFailure or Never"
    together = (
        (m.get("spec") or {}).get("concurrencyPolicy", "Allow") if m.kind == "CronJob" else ""
    )
    if together not in {"", "Allow", "Forbid", "Replace"}:
        yield f"there is no concurrencyPolicy {together}"


@INVARIANTS.register
def credentials_name_their_host(rendered: Rendered) -> Iterator[str]:
    """Where a program gets a key, it is told whom to send it to: no fallback decides."""
    yield from credentials.homeless(rendered.release)


@INVARIANTS.register
@_of_each_object
def secrets_are_fetched_again(m: Manifest) -> Iterator[str]:
    """What comes from an external store is fetched again and again: else rotation never arrives."""
    if m.kind in {"ExternalSecret", "ClusterExternalSecret"}:
        spec = m["spec"].get("externalSecretSpec") or m["spec"]
        interval = str(spec.get("refreshInterval", "1h"))
        if not re.search(r"[1-9]", interval):
            yield f"is fetched once and never again (refreshInterval {interval})"
        if spec.get("refreshPolicy", "Periodic") != "Periodic":
            yield f"is not fetched again when the store changes ({spec['refreshPolicy']})"


@INVARIANTS.register
def secret_keys_are_used(rendered: Rendered) -> Iterator[str]:
    """Every key of a Secret that the release makes or fetches is read by one of its pods."""
    release = rendered.release
    used = {ref for m in release for ref in _secret_uses(m)}
    for m in release.of_kind("Secret", "ExternalSecret"):
        name = m.name if m.kind == "Secret" else (m["spec"].get("target") or {}).get("name", m.name)
        for key in _secret_keys(m) if (name, "") not in used else ():
            if (name, key) not in used:
                yield f"{m.source}: {m.ref}: nothing reads its key {key}"


def _secret_keys(m: Manifest) -> Iterator[str]:
    if m.kind == "Secret":
        yield from {**(m.get("data") or {}), **(m.get("stringData") or {})}
        return
    template = ((m["spec"].get("target") or {}).get("template") or {}).get("data")
    yield from template or (entry["secretKey"] for entry in m["spec"].get("data") or ())


@lru_cache(maxsize=100_000)
def _secret_uses(m: Manifest) -> frozenset[tuple[str, str]]:
    """Return the Secrets and keys that an object's pods read; key "" is the whole."""
    spec = _pod_spec(m) or {}
    found: set[tuple[str, str]] = set()
    for volume in spec.get("volumes") or ():
        parts = (volume.get("projected") or {}).get("sources") or ()
        for secret in filter(None, (source.get("secret") for source in (volume, *parts))):
            keys = [item["key"] for item in secret.get("items") or ()]
            name = secret.get("secretName") or secret["name"]
            found.update((name, key) for key in keys or [""])
    for container in _containers(spec):
        for entry in container.get("envFrom") or ():
            if entry.get("secretRef"):
                found.add((entry["secretRef"]["name"], ""))
        for variable in container.get("env") or ():
            ref = (variable.get("valueFrom") or {}).get("secretKeyRef")
            if ref:
                found.add((ref["name"], ref["key"]))
    return frozenset(found)


_LONG_RUNNING = ("Deployment", "StatefulSet", "DaemonSet")


@INVARIANTS.register
@_of_each_object
def probes_on_long_running_containers(m: Manifest) -> Iterator[str]:
    """Every long-running container says when it is ready, and when it is dead."""
    if m.kind not in _LONG_RUNNING:
        return
    for container in (_pod_spec(m) or {}).get("containers") or ():
        for probe in ("readinessProbe", "livenessProbe"):
            if not container.get(probe):
                yield f"container {container['name']} has no {probe}"


@INVARIANTS.register
@_of_each_object
def probes_are_patient(m: Manifest) -> Iterator[str]:
    """A container is killed later than it stops getting requests, and not within 30 seconds."""
    for container in _containers(_pod_spec(m) or {}):
        ready, alive = (_seconds(container.get(f"{p}Probe")) for p in ("readiness", "liveness"))
        if ready and alive and alive <= ready:
            name = container["name"]
            yield f"container {name} is killed after {alive} s and unready after {ready} s"
        if alive and alive < _KILLED_AFTER_S:
            yield f"container {container['name']} is killed after {alive} s of silence"


_KILLED_AFTER_S = 30


@INVARIANTS.register
@_of_each_object
def probes_ask_in_one_way(m: Manifest) -> Iterator[str]:
    """Every probe asks in exactly one way: the API server refuses others, no schema says so."""
    for container in _containers(_pod_spec(m) or {}):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            found = container.get(probe)
            ways = {"httpGet", "tcpSocket", "exec", "grpc"} & set(found or ())
            if found is not None and len(ways) != 1:
                yield f"container {container['name']}: {probe} asks in {len(ways)} ways"


@INVARIANTS.register
@_of_each_object
def services_name_their_target(m: Manifest) -> Iterator[str]:
    """A Service sends to a port by its name, and has a type that there is."""
    if m.kind != "Service":
        return
    if m["spec"].get("type", "ClusterIP") not in _SERVICE_TYPES:
        yield f"there is no type {m['spec']['type']}"
    for port in m["spec"].get("ports") or ():
        if not isinstance(port.get("targetPort"), str):
            yield f"port {port['port']} leads to a number: it breaks when the container's changes"


_PROTOCOLS = {"TCP", "UDP", "SCTP"}


@INVARIANTS.register
@_of_each_object
def protocols_exist(m: Manifest) -> Iterator[str]:
    """Every port of a Service, a container or a policy is of a protocol that there is."""
    spec = m.get("spec") or {}
    ports = list(spec.get("ports") or ()) if m.kind == "Service" else []
    for container in _containers(_pod_spec(m) or {}):
        ports += container.get("ports") or ()
    for direction in ("ingress", "egress") if m.kind == "NetworkPolicy" else ():
        for rule in spec.get(direction) or ():
            ports += rule.get("ports") or ()
    for port in ports:
        if port.get("protocol", "TCP") not in _PROTOCOLS:
            yield f"there is no protocol {port['protocol']}"


@INVARIANTS.register
@_of_each_object
def nothing_is_left_empty(m: Manifest) -> Iterator[str]:
    """No key of an object is without a value: the template that was to fill it gave nothing."""
    if m.kind != "CustomResourceDefinition":
        yield from (
            f"{path} has no value" for path in _empty(m.content, "") if (m.kind, path) not in _NULLS
        )


#: A null that is meant: it takes away what an earlier strategy has left.
_NULLS = {("Deployment", "spec.strategy.rollingUpdate")}


def _empty(value: Mapping[str, Any] | list[Any], path: str) -> Iterator[str]:
    parts = enumerate(value) if isinstance(value, list) else value.items()
    for key, below in parts:
        if below is None or isinstance(below, dict | list):
            place = f"{path}[{key}]" if isinstance(value, list) else f"{path}.{key}".lstrip(".")
            if below is None:
                yield place
            else:
                yield from _empty(below, place)


_FIELDS = {
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.podIP",
    "status.podIPs",
}
_SWITCH = re.compile(r"(ENABLE|DISABLE)_\w+|\w+_(ENABLED|DISABLED)")


@INVARIANTS.register
@_of_each_object
def variables_have_a_value(m: Manifest) -> Iterator[str]:
    """Every variable has a value or says where it comes from; a switch is true or false."""
    for container in _containers(_pod_spec(m) or {}):
        for variable in container.get("env") or ():
            name, source = variable["name"], variable.get("valueFrom")
            if (variable.get("value") is None) is (not source):
                yield f"container {container['name']}: {name} has no value, or two"
            field = (source or {}).get("fieldRef")
            if field is not None and field.get("fieldPath") not in _FIELDS:
                yield f"container {container['name']}: a pod has no field {field.get('fieldPath')}"
            yield from _odd_switch(name, variable.get("value"))
    if m.kind == "ConfigMap":
        for key, value in (m.get("data") or {}).items():
            yield from _odd_switch(key, value)


_PATH = re.compile(r"(/[\w.-]+)+")
_DIRECTORY = re.compile(r"\w*(DIR|PATH|HOME|PGDATA)|GF_PATHS_\w+")


@INVARIANTS.register
@_of_each_object
def directories_are_in_volumes(m: Manifest) -> Iterator[str]:
    """A variable that names a directory names one in a volume of the container, or above one."""
    for container in _containers(_pod_spec(m) or {}):
        mounts = [mount["mountPath"] for mount in container.get("volumeMounts") or ()]
        for variable in container.get("env") or ():
            path = str(variable.get("value") or "")
            named = _DIRECTORY.fullmatch(variable["name"]) and _PATH.fullmatch(path)
            if named and not any(
                path == one or path.startswith(f"{one}/") or one.startswith(f"{path}/")
                for one in mounts
            ):
                name = container["name"]
                yield f"container {name}: {variable['name']} is {path}, where no volume is mounted"


@INVARIANTS.register
@_of_each_object
def ports_are_what_variables_say(m: Manifest) -> Iterator[str]:
    """A variable NAME_PORT is the number of the container's port of that name."""
    for container in _containers(_pod_spec(m) or {}):
        numbers = {v["name"]: v.get("value") for v in container.get("env") or ()}
        for port in container.get("ports") or ():
            name = str(port.get("name")).upper().replace("-", "_")
            for variable, number in numbers.items():
                if re.fullmatch(rf"(GF_SERVER_)?{name}_PORT", variable) and number != str(
                    port["containerPort"]
                ):
                    named = f"the port {port['name']} is {port['containerPort']}"
                    yield f"container {container['name']}: {variable} is {number}, {named}"


#: Variables whose key is called otherwise, because their program or the key's maker says so.
_CALLED = {
    "PGPASSWORD": "postgres-password",
    "SEARXNG_SECRET": "searxng-secret-key",
    "EXTERNAL_DOCUMENT_LOADER_API_KEY": "gateway-api-key",
    "EXTERNAL_WEB_LOADER_API_KEY": "gateway-api-key",
    "WEBUI_ADMIN_PASSWORD": "admin-password",
}


@INVARIANTS.register
@_of_each_object
def secrets_go_where_they_belong(m: Manifest) -> Iterator[str]:
    """A variable takes the key of a Secret that is called as it is: API_KEY takes api-key."""
    for container in _containers(_pod_spec(m) or {}):
        for variable in container.get("env") or ():
            key = ((variable.get("valueFrom") or {}).get("secretKeyRef") or {}).get("key")
            name = variable["name"]
            own = _CALLED.get(name, name.lower().replace("_", "-"))
            if key is not None and not f"-{own}".endswith(f"-{key}"):
                yield f"container {container['name']}: {name} is the secret {key}, not {own}"


@INVARIANTS.register
@_of_each_object
def variables_refer_to_earlier_ones(m: Manifest) -> Iterator[str]:
    """Every $(NAME) in a value names a variable above it: the kubelet leaves any other as it is."""
    for container in _containers(_pod_spec(m) or {}):
        above: set[str] = set()
        for variable in container.get("env") or ():
            for name in re.findall(r"(?<!\$)\$\((\w+)\)", str(variable.get("value") or "")):
                # Others may come from envFrom; what the pod says of itself never does.
                known = name in above or (container.get("envFrom") and not name.startswith("POD_"))
                if not known:
                    yield f"container {container['name']}: {variable['name']} needs {name} above it"
            above.add(variable["name"])


def _odd_switch(name: str, value: str | None) -> Iterator[str]:
    if value is not None and _SWITCH.fullmatch(name) and value.lower() not in {"true", "false"}:
        yield f"{name} is {value!r}, neither true nor false"


@INVARIANTS.register
@_of_each_object
def volumes_are_what_they_can_be(m: Manifest) -> Iterator[str]:
    """Claims say how they are mounted; configuration is read-only; memory as a disk is bounded."""
    claims = [m] if m.kind == "PersistentVolumeClaim" else []
    claims += m["spec"].get("volumeClaimTemplates") or () if m.kind == "StatefulSet" else ()
    for claim in claims:
        if not claim["spec"].get("accessModes"):
            yield "a claim has no accessModes"
        if not ((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage"):
            yield "a claim asks for no storage"
    spec = _pod_spec(m) or {}
    fixed = {v["name"] for v in spec.get("volumes") or () if {"configMap", "secret"} & v.keys()}
    for volume in spec.get("volumes") or ():
        disk = volume.get("emptyDir") or {}
        if disk.get("medium", "") not in {"", "Memory"}:
            yield f"the volume {volume['name']} is of no medium that there is: {disk['medium']}"
        if disk.get("medium") == "Memory" and not disk.get("sizeLimit"):
            yield f"the volume {volume['name']} may take all the memory (sizeLimit)"
    for container in _containers(spec):
        for mount in container.get("volumeMounts") or ():
            if mount["name"] in fixed and mount.get("readOnly") is not True:
                yield f"container {container['name']}: {mount['name']} is not mounted readOnly"


@INVARIANTS.register
@_of_each_object
def certificates_are_of_the_hosts(m: Manifest) -> Iterator[str]:
    """Every host of an Ingress with TLS is among the hosts of its certificate."""
    if m.kind != "Ingress":
        return
    hosts = {rule.get("host") for rule in m["spec"].get("rules") or ()}
    certified = {host for one in m["spec"].get("tls") or () for host in one.get("hosts") or ()}
    if m["spec"].get("tls") and hosts != certified:
        yield f"serves {sorted(map(str, hosts))} with a certificate of {sorted(certified)}"


_SERVICE_TYPES = {"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"}


def _seconds(probe: Mapping[str, Any] | None) -> int:
    """Return how long a probe fails until it counts."""
    return probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3) if probe else 0


_MOVING = {"latest", "main", "master", "edge", "dev", "nightly", "stable", "head", "canary"}
_IMAGE = re.compile(
    r"(?P<name>[^@\s]+?)(?::(?P<tag>[\w][\w.-]*))?(?P<digest>@sha256:[0-9a-f]{64})?"
)


@INVARIANTS.register
@_of_each_object
def images_pinned(m: Manifest) -> Iterator[str]:
    """Every image has a digest or a tag that does not move."""
    for container in _containers(_pod_spec(m) or {}):
        image = str(container.get("image") or "")
        parts = _IMAGE.fullmatch(image)
        if parts is None:
            yield f"container {container['name']}: {image!r} is no image"
        elif not parts["digest"] and (parts["tag"] is None or parts["tag"].lower() in _MOVING):
            yield f"container {container['name']}: {image} is not pinned"
        if not parts or parts["digest"]:
            continue
        if container.get("imagePullPolicy") not in {"IfNotPresent", "Always", "Never"}:
            yield f"container {container['name']} has no imagePullPolicy"


@INVARIANTS.register
def tokens_only_where_rights_are(rendered: Rendered) -> Iterator[str]:
    """A pod gets a token of the Kubernetes API only if a role of the release is bound to it."""
    release = rendered.release
    bound = {
        subject["name"]
        for binding in release.of_kind("RoleBinding", "ClusterRoleBinding")
        for subject in binding.get("subjects") or ()
        if subject.get("kind") == "ServiceAccount"
    }
    for m in release.of_kind(*WORKLOAD_KINDS, "Pod"):
        spec = _pod_spec(m) or {}
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
@_of_each_object
def no_service_links(m: Manifest) -> Iterator[str]:
    """No pod gets variables of every Service: they collide with the programs' own names."""
    spec = _pod_spec(m)
    if spec is not None and spec.get("enableServiceLinks") is not False:
        yield "enableServiceLinks is not false"


@INVARIANTS.register
@_of_each_object
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
        for volume in (_pod_spec(m) or {}).get("volumes") or ():
            name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            claim = rendered.release.find("PersistentVolumeClaim", name) if name else None
            if claim is None or "ReadWriteMany" in claim["spec"]["accessModes"]:
                continue
            if (m["spec"].get("strategy") or {}).get("type") != "Recreate":
                yield f"{m.source}: {m.ref}: two pods at once could not both mount {name}"
            if m["spec"].get("replicas", 1) != 1:
                yield f"{m.source}: {m.ref}: its replicas cannot all mount {name}"


@INVARIANTS.register
def what_rolls_says_how(rendered: Rendered) -> Iterator[str]:
    """A rolling strategy names its values, so that server-side apply can take them away.

    Recreate is refused beside a rollingUpdate, and an applier owns only what it said, no default
    (tests/e2e/test_cluster.py asks an API server).
    """
    for m in rendered.release.of_kind("Deployment"):
        strategy = m["spec"].get("strategy") or {}
        if strategy.get("type") == "RollingUpdate" and not strategy.get("rollingUpdate"):
            yield f"{m.source}: {m.ref}: could not become Recreate: say rollingUpdate"


@INVARIANTS.register
def budgets_let_nodes_drain(rendered: Rendered) -> Iterator[str]:
    """Several replicas have a disruption budget, and every budget lets one pod go."""
    release = rendered.release
    budgets = release.of_kind("PodDisruptionBudget")
    for m in release.of_kind("Deployment", "StatefulSet"):
        labels, replicas = _pod_labels(m), m["spec"].get("replicas", 1)
        own = [b for b in budgets if _selects(b, labels)]
        if replicas > 1 and not own:
            yield f"{m.source}: {m.ref} has {replicas} replicas and no PodDisruptionBudget"
        for budget in own:
            least = budget["spec"].get("minAvailable", 0)
            if budget["spec"].get("maxUnavailable") == 0 or (
                isinstance(least, int) and least >= replicas
            ):
                yield f"{budget.source}: {budget.ref} lets no pod of {m.ref} go: nodes cannot drain"


@INVARIANTS.register
def replicas_are_apart(rendered: Rendered) -> Iterator[str]:
    """Several replicas of a pod go to several nodes, where there are several."""
    for m in rendered.release.of_kind("Deployment", "StatefulSet"):
        labels = _pod_labels(m)
        if m["spec"].get("replicas", 1) > 1 and not any(
            matches(selector, labels) for selector in _apart(_pod_spec(m) or {})
        ):
            yield f"{m.source}: {m.ref}: all of its replicas may be on the node that goes"


def _apart(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield selectors of the pods that a pod keeps away from, by node."""
    node = "kubernetes.io/hostname"
    for spread in spec.get("topologySpreadConstraints") or ():
        if spread["topologyKey"] == node and spread.get("labelSelector"):
            yield spread["labelSelector"]
    away = (spec.get("affinity") or {}).get("podAntiAffinity") or {}
    preferred = away.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    for term in (
        *(away.get("requiredDuringSchedulingIgnoredDuringExecution") or ()),
        *(one["podAffinityTerm"] for one in preferred),
    ):
        if term["topologyKey"] == node and term.get("labelSelector"):
            yield term["labelSelector"]


def _selects(m: Manifest, labels: Mapping[str, str]) -> bool:
    wanted = (m["spec"].get("selector") or {}).get("matchLabels") or {}
    return bool(wanted) and wanted.items() <= labels.items()


# --- Network ------------------------------------------------------------------------------------


@INVARIANTS.register
@_of_each_object
def policies_name_their_peers(m: Manifest) -> Iterator[str]:
    """A NetworkPolicy says which directions it rules, and lets in nobody who is not named."""
    if m.kind != "NetworkPolicy":
        return
    spec = m["spec"]
    types = spec.get("policyTypes") or ()
    for direction, side in (("Ingress", "from"), ("Egress", "to")):
        rules = spec.get(direction.lower()) or ()
        if not types or len(set(types)) != len(types):
            yield "does not say which directions it rules (policyTypes)"
        if rules and direction not in types:
            yield f"has {direction.lower()} rules that policyTypes does not switch on"
        for rule in rules:
            if not rule.get(side):
                yield f"an {direction.lower()} rule names nobody, which means everybody"
            if not rule.get("ports"):
                yield f"an {direction.lower()} rule names no port, which means all"
            for peer in rule.get(side) or ():
                where = peer.get("namespaceSelector", "here")
                if not where or (where != "here" and not any(where.values())):
                    yield f"an {direction.lower()} rule has every namespace as its peer"
                if not any(peer.values()):
                    yield f"an {direction.lower()} rule has an empty peer, which means everybody"


@INVARIANTS.register
def what_policies_close_they_open(rendered: Rendered) -> Iterator[str]:
    """What a pod is configured to call is let out by policies and let in there; ways in lead in."""
    yield from network.blocked([rendered.release], rendered.externals)
    yield from network.cut_off([rendered.release], rendered.externals)
    yield from network.locked_out([rendered.release], rendered.externals)


@INVARIANTS.register
def policies_open_no_more(rendered: Rendered) -> Iterator[str]:
    """Where policies close a pod off, only pods that are configured to call it get through."""
    if rendered.release.of_kind("NetworkPolicy"):
        yield from network.unneeded([rendered.release], rendered.externals)


# --- Secrets and configuration ------------------------------------------------------------------

_SECRET_NAME = re.compile(
    r"(?i)(^|[_.-])(password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key|credentials?)s?"
    r"($|[_.-](key|value|file)?$)"
)
_NO_SECRET = re.compile(r"|true|false|\d{1,4}|/[\w./-]*|\$\(?\{?\w+[)}]?.*|\{\{.*\}\}", re.DOTALL)
_KNOWN_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bsk-[A-Za-z0-9_-]{16,}|\bgh[pousr]_\w{20,}"
    r"|\bglpat-\S{16,}|\bAKIA[0-9A-Z]{16}\b|\bxox[abp]-\S{10,}|\beyJ[\w-]{10,}\.[\w-]{10,}\.|\$2[aby]\$\d\d\$\S{53}"
)
_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@\"']*:(?P<password>[^/\s@\"'$]+)@")
_SETTING = re.compile(
    r"^\s*[\"']?([\w.-]+)[\"']?\s*[:=]\s*[\"']?([^\"'\n]*?)[\"']?\s*,?$", re.MULTILINE
)
_RANDOM = re.compile(r"(?<![\w/+.-])[A-Za-z0-9+/_-]{24,}={0,2}(?![\w/+.-])")
_RANDOM_BITS = 4.0
"""Bits a character above which 24 or more of digits, lower and upper case letters are random."""


@INVARIANTS.register
@_of_each_object
def no_secret_in_clear_text(m: Manifest) -> Iterator[str]:
    """Nothing outside a Secret holds a secret.

    A secret is: the value of a variable or of a setting whose name ends in password, secret, token,
    api key, private key or credentials, unless it is empty, a switch, a path or a reference; a
    password in a URL; what looks like a key of a known issuer or a bcrypt hash; or a random string.
    """
    if m.kind in {"Secret", "CustomResourceDefinition"}:
        return
    for spec in (_pod_spec(m) or {},):
        for container in _containers(spec):
            for variable in container.get("env") or ():
                value = str(variable.get("value") or "")
                yield from _secret_in(f"the variable {variable['name']}", variable["name"], value)
            for word in (*(container.get("command") or ()), *(container.get("args") or ())):
                flag, _, value = str(word).partition("=")
                yield from _secret_in(f"the argument {flag}", flag.lstrip("-"), value)
                yield from _secret_text("an argument", str(word))
    if m.kind == "ConfigMap":
        for key, text in (m.get("data") or {}).items():
            yield from _secret_in(f"the key {key}", key, text if "\n" not in text else "")
            for name, value in _SETTING.findall(text) if "\n" in text else ():
                yield from _secret_in(f"{name} in {key}", name, value)
            yield from _secret_text(f"the key {key}", text)


def _secret_in(where: str, name: str, value: str) -> Iterator[str]:
    if _SECRET_NAME.search(name) and not _NO_SECRET.fullmatch(value.strip()):
        yield f"{where} holds a secret in clear text"
    elif "\n" not in value:
        yield from _secret_text(where, value)


def _secret_text(where: str, text: str) -> Iterator[str]:
    if _KNOWN_SECRET.search(text):
        yield f"{where} holds a key or a hash in clear text"
    for found in _IN_URL.finditer(text):
        if not _NO_SECRET.fullmatch(found["password"]):
            yield f"{where} holds a password in a URL"
    if any(_is_random(word) for word in _RANDOM.findall(text)):
        yield f"{where} holds a random string, as secrets are"


def _is_random(word: str) -> bool:
    if not (re.search(r"\d", word) and re.search(r"[a-z]", word) and re.search(r"[A-Z]", word)):
        return False
    counts = Counter(word).values()
    return -sum(n / len(word) * math.log2(n / len(word)) for n in counts) > _RANDOM_BITS


@INVARIANTS.register
@_of_each_object
def configuration_parses(m: Manifest) -> Iterator[str]:
    """Every YAML or JSON file in a ConfigMap parses, and gives no key twice."""
    if m.kind != "ConfigMap":
        return
    for key, text in (m.get("data") or {}).items():
        if not key.endswith((".yaml", ".yml", ".json")):
            continue
        try:
            if key.endswith(".json"):
                json.loads(text)
            else:
                yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a CSafeLoader)
        except (ValueError, yaml.YAMLError) as error:
            yield f"{key} does not parse: {' '.join(str(error).split())}"


class _StrictLoader(yaml.CSafeLoader):
    """A loader for which a key given twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there already."""
        keys = Counter(
            str(key.value) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"
        )
        twice = [key for key, times in keys.items() if times > 1]
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice[0]} is given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


@INVARIANTS.register
@_of_each_object
def variables_are_given_once(m: Manifest) -> Iterator[str]:
    """No container has a variable, a port, a mount path or a volume twice."""
    spec = _pod_spec(m) or {}
    yield from _twice("volume", [v["name"] for v in spec.get("volumes") or ()])
    for container in _containers(spec):
        name = container["name"]
        variables = [v["name"] for v in container.get("env") or ()]
        yield from _twice(f"container {name}: variable", variables)
        ports = [p["containerPort"] for p in container.get("ports") or ()]
        yield from _twice(f"container {name}: port", ports)
        paths = [p["mountPath"] for p in container.get("volumeMounts") or ()]
        yield from _twice(f"container {name}: mount", paths)


def _twice(what: str, names: Sequence[object]) -> Iterator[str]:
    for name, times in Counter(names).items():
        if times > 1:
            yield f"{what} {name} is given {times} times"


#: Variables that a program reads by itself, whatever its files say.
_BY_ITSELF = re.compile(
    r"GO(MEMLIMIT|MAXPROCS|GC)|GF_\w+|XDG_(DATA|CONFIG)_HOME|POD_\w+|STACKPROOF_\w+|PGPASSWORD"
)


@INVARIANTS.register
def variables_are_read(rendered: Rendered) -> Iterator[str]:
    """Where files or arguments expand variables, each variable of the container is among them."""
    for m in rendered.release.workloads():
        found = (rendered.release.find(*used) for used in sorted(_uses(m)))
        yield from _unread(m, tuple(made for made in found if made and made.kind == "ConfigMap"))


_EXPANDED = re.compile(r"\$\(|\$\{[A-Z]\w+[:}]|\{\$[A-Z]|sys\.env\(|\$[A-Z]{2,}_")


@lru_cache(maxsize=20_000)
def _unread(m: Manifest, config_maps: Sequence[Manifest]) -> tuple[str, ...]:
    """Return where a workload has variables that none of its files, if they expand any, names."""
    volumes = {v["name"]: v.get("configMap") for v in (_pod_spec(m) or {}).get("volumes") or ()}
    by_name = {made.name: made for made in config_maps}
    found: list[str] = []
    for container in containers(m):
        mounted = [volumes.get(one["name"]) for one in container.get("volumeMounts") or ()]
        names = [one["name"] for one in mounted if one and one["name"] in by_name]
        files = [text for name in names for text in (by_name[name].get("data") or {}).values()]
        words = [*(container.get("command") or ()), *(container.get("args") or ()), *files]
        if not any(_EXPANDED.search(str(text)) for text in words):
            continue
        words += [str(variable.get("value") or "") for variable in container.get("env") or ()]
        read = set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", "\n".join(words)))
        given = (variable["name"] for variable in container.get("env") or ())
        found += [n for n in given if n not in read and not _BY_ITSELF.fullmatch(n)]
    return tuple(f"{m.source}: {m.ref}: nothing reads {name}" for name in found)


@INVARIANTS.register
def a_changed_configuration_rolls_its_pods(rendered: Rendered) -> Iterator[str]:
    """A pod template that uses a ConfigMap of the release carries a checksum of a configuration."""
    made = {m.name for m in rendered.release.of_kind("ConfigMap")}
    for m in rendered.release.of_kind(*_LONG_RUNNING):
        used = {name for kind, name in _uses(m) if kind == "ConfigMap"} & made
        annotations = (pod_template(m).get("metadata") or {}).get("annotations") or {}
        sums = [v for key, v in annotations.items() if key.startswith("checksum/")]
        if used and not any(re.fullmatch(r"[0-9a-f]{64}", str(value)) for value in sums):
            names = ", ".join(sorted(used))
            yield f"{m.source}: {m.ref}: a change of {names} does not roll its pods"


def problems(rendered: Rendered) -> Iterator[str]:
    """Yield what any invariant finds, with its name.

    Objects that are not valid have no shape that the others could look at: they are told alone.
    """
    for check in INVARIANTS:
        found = [f"{check.name}: {problem}" for problem in check.find(rendered)]
        yield from found
        if found and check.find is schema_valid:
            return


def broken(rendered: Rendered) -> tuple[str, str] | None:
    """Return the first invariant that does not hold and its message, None if all do."""
    for check in INVARIANTS:
        for problem in check.find(rendered):
            return check.name, problem
    return None
