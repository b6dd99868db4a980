"""What rendered releases refer to, and whether it is there.

Releases that are deployed together are checked together: an address in one may name a Service
of another. Each check is a function from a `Cluster` to problems.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import yaml

from . import endpoints
from .manifests import (
    WORKLOAD_KINDS,
    Manifest,
    Release,
    at,
    backends,
    claims,
    containers,
    expand,
    parsed,
    parts,
    pod_labels,
    pod_spec,
    target_secret,
)
from .uses import uses

Named = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenReference:
    """A reference that leads nowhere."""

    check: str
    """Which check found it: key, object, mount, address, service, data-source, policy, scale, …"""
    object: str
    """KIND/NAME of the object that refers."""
    path: str
    """Where in that object."""
    reason: str
    source: str
    """The template that the object comes from."""
    namespace: str

    def __str__(self) -> str:
        return f"{self.source}: {self.object} in {self.namespace}, {self.path}: {self.reason}"


@dataclass(frozen=True)
class Externals:
    """What exists although no release makes it."""

    keys: Mapping[Named, frozenset[str] | None] = field(default_factory=dict)
    """Secrets and ConfigMaps and their keys; None: any key."""
    services: Mapping[Named, frozenset[int]] = field(default_factory=dict)
    """Services and their ports."""
    objects: frozenset[tuple[str, str]] = frozenset()
    """Kind and name of other objects, such as a ClusterSecretStore."""


NOTHING = Externals()

#: Labels of the pod that cert-manager starts beside an Ingress to answer its issuer by HTTP-01: no
#: release makes it, and its policies are the release's (cert-manager, pkg/apis/acme/v1/labels.go).
HTTP01_SOLVER = {"acme.cert-manager.io/http01-solver": "true"}


@dataclass(frozen=True)
class PodTemplate:
    """The pods of a workload."""

    workload: Manifest
    namespace: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    @classmethod
    def of(cls, workload: Manifest) -> PodTemplate:
        """Return the pods of a workload."""
        return cls(workload, workload.namespace or "", pod_labels(workload), pod_spec(workload))

    @cached_property
    def ports(self) -> Mapping[str, int]:
        """Container ports: by name, and by number as text."""
        own = containers(self.workload)
        ports = [port for container in own for port in container.get("ports") or ()]
        return _numbers(ports, "containerPort")


def _numbers(ports: Iterable[Mapping[str, Any]], key: str) -> dict[str, int]:
    """Return the numbers of ports: by name, and by number as text."""
    found: dict[str, int] = {}
    for port in ports:
        found[str(port[key])] = port[key]
        if port.get("name"):
            found[port["name"]] = port[key]
    return found


class Cluster:
    """Releases that are deployed together, indexed."""

    def __init__(self, releases: Iterable[Release], externals: Externals = NOTHING) -> None:
        self.releases = tuple(releases)
        self.externals = externals
        self.manifests = [m for release in self.releases for m in release.manifests]
        self.namespaces = {r.namespace for r in self.releases} | {
            m.namespace for m in self.manifests if m.namespace
        }
        self.namespaces |= {m.name for m in self.manifests if m.kind == "Namespace"}
        self._by_name = {(m.kind, m.namespace, m.name): m for m in self.manifests}
        self.pods = [PodTemplate.of(m) for m in self.manifests if m.kind in WORKLOAD_KINDS]

    def find(self, kind: str, namespace: str | None, name: str) -> Manifest | None:
        """Return an object, None if no release makes it."""
        return self._by_name.get((kind, namespace, name))

    def there(self, kind: str, namespace: str | None, name: str) -> bool:
        """Tell whether an object exists, made by a release or not."""
        return (kind, namespace, name) in self._by_name or (kind, name) in self.externals.objects

    @cached_property
    def keys(self) -> Mapping[tuple[str, str, str], frozenset[str] | None]:
        """Keys of every ConfigMap and Secret by (kind, namespace, name); None: not known."""
        found: dict[tuple[str, str, str], frozenset[str] | None] = {}
        for (namespace, name), keys in self.externals.keys.items():
            found["Secret", namespace, name] = found["ConfigMap", namespace, name] = keys
        for m in self.manifests:
            if m.kind in {"ConfigMap", "Secret"}:
                kind, name = m.kind, m.name
                keys_made: frozenset[str] | None = frozenset(_data(m))
            elif m.kind == "ExternalSecret":
                kind, name = "Secret", target_secret(m)
                keys_made = _external_keys(m["spec"])
            else:
                continue
            key = (kind, m.namespace or "", name)
            before = found.get(key, frozenset())
            found[key] = None if before is None or keys_made is None else before | keys_made
        return found

    def service_ports(self, service: Named) -> Mapping[str, int] | None:
        """Return a Service's ports by name and by number as text, None if there is no such."""
        made = self.find("Service", *service)
        if made is None:
            numbers = self.externals.services.get(service)
            return None if numbers is None else {str(n): n for n in numbers}
        return _numbers(made["spec"].get("ports") or (), "port")

    def selected(self, namespace: str, selector: Mapping[str, Any] | None) -> list[PodTemplate]:
        """Return the pods of a namespace that a selector matches; an empty one matches all."""
        return [p for p in self.pods if p.namespace == namespace and matches(selector, p.labels)]


def check(releases: Iterable[Release], externals: Externals = NOTHING) -> list[BrokenReference]:
    """Return every reference of these releases that leads nowhere."""
    return list(problems(Cluster(releases, externals)))


def problems(cluster: Cluster) -> Iterator[BrokenReference]:
    """Yield every reference in a cluster that leads nowhere."""
    for one in CHECKS:
        yield from one(cluster)


def _problem(check_name: str, manifest: Manifest, path: str, reason: str) -> BrokenReference:
    return BrokenReference(
        check=check_name,
        object=manifest.ref,
        path=path,
        reason=reason,
        source=manifest.source,
        namespace=manifest.namespace or "(cluster)",
    )


# --- ConfigMaps, Secrets, volumes, accounts ---------------------------------------------------


def _unresolved_keys(cluster: Cluster) -> Iterator[BrokenReference]:
    """Find ConfigMaps, Secrets and keys in them that nothing makes."""
    for pod in cluster.pods:
        for use in uses(pod.workload):
            if use.optional:
                continue
            keys = cluster.keys.get((use.kind, pod.namespace, use.name), frozenset())
            if (use.kind, pod.namespace, use.name) not in cluster.keys:
                reason = f"nothing makes the {use.kind} {use.name}"
            elif use.key and keys is not None and use.key not in keys:
                made = ", ".join(sorted(keys)) or "none"
                reason = f"the {use.kind} {use.name} has no key {use.key}; it has {made}"
            else:
                continue
            yield _problem("key", pod.workload, use.path, reason)


def _data(manifest: Manifest) -> dict[str, str]:
    """Return what a ConfigMap or Secret holds, as text; binary values as ""."""
    found: dict[str, str] = dict.fromkeys(manifest.get("binaryData") or (), "")
    for key, value in (manifest.get("data") or {}).items():
        found[key] = _decoded(value) if manifest.kind == "Secret" else value
    return found | (manifest.get("stringData") or {})


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _external_keys(spec: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the keys of the Secret that an ExternalSecret makes, None if only the store knows."""
    fetched = frozenset(entry["secretKey"] for entry in spec.get("data") or ())
    template = at(spec, "target.template") or {}
    made = frozenset(template.get("data") or ())
    if made and template.get("mergePolicy", "Replace") == "Replace":
        return made
    return None if spec.get("dataFrom") else fetched | made


_TEMPLATE_KEY = re.compile(r"index\s+\.\s+\"([^\"]+)\"|[\s({|]\.([A-Za-z_]\w*)")
_ACTION = re.compile(r"\{\{.*?\}\}", re.DOTALL)


def _unresolved_templates(cluster: Cluster) -> Iterator[BrokenReference]:
    """Find ExternalSecret templates that use keys which the ExternalSecret does not fetch."""
    for m in cluster.manifests:
        if m.kind != "ExternalSecret" or m["spec"].get("dataFrom"):
            continue
        fetched = {entry["secretKey"] for entry in m["spec"].get("data") or ()}
        for key, text in (at(m, "spec.target.template.data") or {}).items():
            for action in _ACTION.findall(text):
                for quoted, plain in _TEMPLATE_KEY.findall(action):
                    used = quoted or plain
                    if used not in fetched:
                        reason = f"the template uses {used}, which is not fetched"
                        yield _problem("key", m, f"spec.target.template.data[{key}]", reason)


_RBAC = "rbac.authorization.k8s.io"


def _unresolved_objects(cluster: Cluster) -> Iterator[BrokenReference]:
    """Find claims, accounts, roles, stores and scale targets that nothing makes."""
    for m, path, kind, namespace, name in _object_uses(cluster):
        if not cluster.there(kind, namespace, name):
            yield _problem("object", m, path, f"nothing makes the {kind} {name}")
        if path == "roleRef" and m["roleRef"].get("apiGroup") != _RBAC:
            yield _problem("object", m, path, f"the apiGroup must be {_RBAC}")


def _object_uses(cluster: Cluster) -> Iterator[tuple[Manifest, str, str, str | None, str]]:
    for pod in cluster.pods:
        account = pod.spec.get("serviceAccountName", "default")
        if account != "default":  # every namespace has that one
            yield pod.workload, "serviceAccountName", "ServiceAccount", pod.namespace, account
        for volume in pod.spec.get("volumes") or ():
            if claim := at(volume, "persistentVolumeClaim.claimName"):
                path = f"volumes[{volume['name']}]"
                yield pod.workload, path, "PersistentVolumeClaim", pod.namespace, claim
    for m in cluster.manifests:
        spec = m.get("spec") or {}
        if m.kind == "StatefulSet" and spec.get("serviceName"):
            yield m, "spec.serviceName", "Service", m.namespace, spec["serviceName"]
        elif m.kind == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            yield m, "spec.scaleTargetRef", target["kind"], m.namespace, target["name"]
        elif m.kind == "ExternalSecret":
            store = spec["secretStoreRef"]
            kind = store.get("kind", "SecretStore")
            namespace = None if kind == "ClusterSecretStore" else m.namespace
            yield m, "spec.secretStoreRef", kind, namespace, store["name"]
        elif m.kind in {"RoleBinding", "ClusterRoleBinding"}:
            yield from _binding_uses(m)


def _binding_uses(m: Manifest) -> Iterator[tuple[Manifest, str, str, str | None, str]]:
    role = m["roleRef"]
    namespace = m.namespace if role["kind"] == "Role" else None
    yield m, "roleRef", role["kind"], namespace, role["name"]
    for subject in m.get("subjects") or ():
        if subject["kind"] == "ServiceAccount" and subject["name"] != "default":
            where = subject.get("namespace") or m.namespace
            yield m, "subjects", "ServiceAccount", where, subject["name"]


def _bad_mounts(cluster: Cluster) -> Iterator[BrokenReference]:
    """Find mounts of volumes that the pod does not have, and volumes that nothing mounts."""
    for pod in cluster.pods:
        volumes = {volume["name"] for volume in pod.spec.get("volumes") or ()}
        volumes |= {at(claim, "metadata.name") or "" for claim in claims(pod.workload)}
        mounted = set()
        for container in containers(pod.workload):
            for mount in container.get("volumeMounts") or ():
                mounted.add(mount["name"])
                if mount["name"] not in volumes:
                    path = f"containers[{container['name']}].volumeMounts"
                    reason = f"the pod has no volume {mount['name']}"
                    yield _problem("mount", pod.workload, path, reason)
        for volume in sorted(volumes - mounted):
            yield _problem("mount", pod.workload, f"volumes[{volume}]", "nothing mounts it")


def _bad_probes(cluster: Cluster) -> Iterator[BrokenReference]:
    """Find probes of ports that the container does not have, by name, or the pod by number."""
    for pod in cluster.pods:
        numbers = {
            str(port["containerPort"])
            for container in containers(pod.workload)
            for port in container.get("ports") or ()
        }
        for container in containers(pod.workload):
            ports = container.get("ports") or ()
            there = numbers | {p.get("name") for p in ports}
            for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
                for how in ("httpGet", "tcpSocket", "grpc"):
                    action = (container.get(probe) or {}).get(how)
                    if action and str(action["port"]) not in there:
                        path = f"containers[{container['name']}].{probe}"
                        reason = f"the container has no port {action['port']}"
                        yield _problem("probe", pod.workload, path, reason)


# --- Services, addresses, routes --------------------------------------------------------------


def _dead_services(cluster: Cluster) -> Iterator[BrokenReference]:
    """Find Services that select no pod, or lead to a port that no pod of theirs has."""
    for m in cluster.manifests:
        if m.kind != "Service" or not m["spec"].get("selector"):
            continue
        pods = cluster.selected(m.namespace or "", {"matchLabels": m["spec"]["selector"]})
        if not pods:
            yield _problem("service", m, "spec.selector", "selects no pod")
            continue
        for port in m["spec"].get("ports") or ():
            target = str(port.get("targetPort", port["port"]))
            for pod in pods:
                if target not in pod.ports:
                    reason = f"{pod.workload.ref} has no port {target}"
                    yield _problem("service", m, f"spec.ports[{port['port']}].targetPort", reason)


def _dead_addresses(cluster: Cluster) -> Iterator[BrokenReference]:
    """Find addresses of Services, or of ports of Services, that are not there."""
    for m in cluster.manifests:
        for path, endpoint in addresses(m):
            service = endpoint.service(m.namespace or "", cluster.namespaces)
            if service is None:
                continue
            ports = cluster.service_ports(service)
            namespace, name = service
            if ports is None:
                reason = f"{endpoint.host}: there is no Service {name} in {namespace}"
            elif endpoint.port is not None and str(endpoint.port) not in ports:
                there = ", ".join(sorted({str(number) for number in ports.values()}))
                reason = f"{endpoint.host}: the Service has no port {endpoint.port}, but {there}"
            else:
                continue
            yield _problem("address", m, path, reason)


@lru_cache(maxsize=100_000)
def addresses(m: Manifest) -> tuple[tuple[str, endpoints.Endpoint], ...]:
    """Return where and what: the addresses of Services that an object's texts hold."""
    return tuple(
        (path, endpoint)
        for path, text, is_value in _texts(m)
        for endpoint in sorted(
            endpoints.in_value(text) if is_value else endpoints.in_text(text),
            key=lambda e: (e.host, e.port or 0),
        )
    )


def _texts(m: Manifest) -> Iterator[tuple[str, str, bool]]:
    """Yield where, text, and whether it is one value (else a file) for all that names addresses."""
    if m.kind in {"ConfigMap", "Secret"}:
        for key, text in _data(m).items():
            yield f"data[{key}]", text, "\n" not in text
    elif m.kind == "ExternalSecret":
        for key, text in (at(m, "spec.target.template.data") or {}).items():
            yield f"spec.target.template.data[{key}]", text, "\n" not in text
    elif m.kind in WORKLOAD_KINDS:
        for container in containers(m):
            known: dict[str, str] = {}
            where = f"containers[{container['name']}]"
            for entry in container.get("env") or ():
                known[entry["name"]] = expand(entry.get("value") or "", known)
                yield f"{where}.env[{entry['name']}]", known[entry["name"]], True
            for word in (*(container.get("command") or ()), *(container.get("args") or ())):
                yield f"{where}.args", expand(word, known), "\n" not in word


def _dead_routes(cluster: Cluster) -> Iterator[BrokenReference]:
    """Find backends of an Ingress or an HTTPRoute that are no Service or no port of it."""
    for m in cluster.manifests:
        for name, port in backends(m):
            ports = cluster.service_ports((m.namespace or "", name))
            if ports is None:
                reason = f"there is no Service {name}"
            elif port not in ports or (m.kind == "HTTPRoute" and not port.isdigit()):
                reason = f"the Service {name} has no port {port}"
            else:
                continue
            yield _problem("route", m, "spec.rules", reason)


# --- Config files -----------------------------------------------------------------------------

# ${NAME} of Mimir, Loki, Tempo; {$NAME} of Caddy; sys.env("NAME") of Alloy; $NAME of Grafana; none
# with a default.
_VARIABLE = re.compile(
    r"(?<!\$)\$\{([A-Z][A-Z0-9_]*)\}|\{\$([A-Z][A-Z0-9_]*)\}|sys\.env\(\"(\w+)\"\)"
    r"|(?<![{$])\$([A-Z][A-Z0-9_]+)\b"
)


def _missing_variables(cluster: Cluster) -> Iterator[BrokenReference]:
    """Find variables in mounted config files that the container's environment lacks."""
    for pod in cluster.pods:
        by_volume = {
            volume["name"]: cluster.find("ConfigMap", pod.namespace, volume["configMap"]["name"])
            for volume in pod.spec.get("volumes") or ()
            if volume.get("configMap")
        }
        for container in containers(pod.workload):
            if container.get("envFrom"):
                continue  # its names are not all known here
            names = {entry["name"] for entry in container.get("env") or ()}
            for mount in container.get("volumeMounts") or ():
                config_map = by_volume.get(mount["name"])
                for key, variables in _variables(config_map) if config_map else ():
                    for variable in sorted(variables - names):
                        path = f"containers[{container['name']}].env"
                        reason = f"has no {variable}, which {config_map}:{key} uses"
                        yield _problem("variable", pod.workload, path, reason)


@lru_cache(maxsize=100_000)
def _variables(config_map: Manifest) -> tuple[tuple[str, frozenset[str]], ...]:
    return tuple(
        (key, frozenset("".join(groups) for groups in _VARIABLE.findall(text)))
        for key, text in _data(config_map).items()
        if not key.endswith(".json")  # Grafana's dashboards have variables of their own
    )


@dataclass(frozen=True)
class _Sources:
    """Grafana data sources in a file: the uids that it makes, and those that it uses (where)."""

    made: tuple[str, ...] = ()
    used: tuple[tuple[str, str], ...] = ()


def _dead_data_sources(cluster: Cluster) -> Iterator[BrokenReference]:
    """Find data-source uids that nothing provisions, or that are provisioned twice."""
    for namespace in sorted(cluster.namespaces):
        found = [
            (m, key, _sources(text))
            for m in cluster.manifests
            if m.kind == "ConfigMap" and m.namespace == namespace
            for key, text in _data(m).items()
        ]
        made = Counter(uid for _, _, sources in found for uid in sources.made)
        for m, key, sources in found:
            for uid in sorted({uid for uid in sources.made if made[uid] > 1}):
                reason = f"the uid {uid} is provisioned {made[uid]} times"
                yield _problem("data-source", m, f"data[{key}]", reason)
            for where, uid in sources.used:
                if uid not in made:
                    there = ", ".join(sorted(made)) or "none"
                    reason = f"{where}: no data source has the uid {uid}; there are: {there}"
                    yield _problem("data-source", m, f"data[{key}]", reason)


_BUILT_IN = {"grafana", "-- Grafana --", "-- Mixed --", "-- Dashboard --", "__expr__"}


@lru_cache(maxsize=20_000)
def _sources(text: str) -> _Sources:
    if "datasource" not in text:
        return _Sources()
    try:
        data = json.loads(text) if text.lstrip().startswith("{") else parsed(text)
    except (ValueError, yaml.YAMLError):
        return _Sources()  # no provisioning file; each program's own check judges its syntax
    if not isinstance(data, dict):
        return _Sources()
    provisioned = data.get("datasources")
    made: Sequence[Any] = provisioned if isinstance(provisioned, list) else ()
    uids = tuple(str(one["uid"]) for one in made if isinstance(one, dict) and one.get("uid"))
    used = ((w, u) for w, u in _used_uids(data) if not u.startswith("$"))
    return _Sources(uids, tuple((w, u) for w, u in used if u not in _BUILT_IN))


def _used_uids(data: Any) -> Iterator[tuple[str, str]]:
    """Yield where and uid: `…datasourceUid: UID` of links, `datasource: {uid: UID}` of panels."""
    for path, value in parts(data):
        key = path.rpartition(".")[2]
        if key.lower().endswith("datasourceuid") and not isinstance(value, dict | list):
            yield path, str(value)
        elif key == "datasource" and isinstance(value, dict) and value.get("uid"):
            yield path, str(value["uid"])


# --- Selectors --------------------------------------------------------------------------------


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Tell whether a label selector matches; an empty one matches everything."""
    selector = selector or {}
    wanted = selector.get("matchLabels") or {}
    return wanted.items() <= labels.items() and all(
        _expression(one, labels) for one in selector.get("matchExpressions") or ()
    )


def _expression(one: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(one["key"]), one.get("values") or ()
    verdicts = {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }
    return verdicts[one["operator"]]


def _own_selectors(cluster: Cluster) -> Iterator[BrokenReference]:
    """Find workloads that do not select their own pods, and budgets that select none."""
    for pod in cluster.pods:
        selector = pod.workload["spec"].get("selector")
        if selector is not None and not matches(selector, pod.labels):
            reason = "does not select the workload's own pods"
            yield _problem("selector", pod.workload, "spec.selector", reason)
    for m in cluster.manifests:
        if m.kind == "PodDisruptionBudget" and not cluster.selected(
            m.namespace or "", m["spec"].get("selector")
        ):
            yield _problem("selector", m, "spec.selector", "selects no pod")


def _dead_policies(cluster: Cluster) -> Iterator[BrokenReference]:
    """Find NetworkPolicies that select no pod, or let in or out what is not there."""
    for m in cluster.manifests:
        if m.kind != "NetworkPolicy":
            continue
        namespace, spec = m.namespace or "", m["spec"]
        chosen = cluster.selected(namespace, spec.get("podSelector"))
        if not chosen and not matches(spec.get("podSelector"), HTTP01_SOLVER):
            yield _problem("policy", m, "spec.podSelector", "selects no pod")
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for index, rule in enumerate(spec.get(direction) or ()):
                path = f"spec.{direction}[{index}]"
                listening = chosen if direction == "ingress" else []
                for peer in rule.get(side) or ():
                    found = _peers(cluster, namespace, peer)
                    if found is None:
                        listening = chosen if direction == "ingress" else []
                        break
                    if not found:
                        reason = f"no pod matches {json.dumps(peer, sort_keys=True)}"
                        yield _problem("policy", m, f"{path}.{side}", reason)
                    if direction == "egress":
                        listening = [*listening, *found]
                yield from _policy_ports(m, f"{path}.ports", rule, listening)


def _policy_ports(
    m: Manifest, path: str, rule: Mapping[str, Any], listening: Sequence[PodTemplate]
) -> Iterator[BrokenReference]:
    """Find ports of a rule that none of the listening pods has."""
    for port in rule.get("ports") or ():
        wanted = port.get("port")
        if not listening or wanted is None or port.get("endPort"):
            continue
        if not any(str(wanted) in pod.ports for pod in listening):
            names = ", ".join(sorted({pod.workload.ref for pod in listening}))
            yield _problem("policy", m, path, f"no pod of {names} has the port {wanted}")


def _peers(cluster: Cluster, namespace: str, peer: Mapping[str, Any]) -> list[PodTemplate] | None:
    """Return the pods that a peer of a rule means, None if they are not ours to know."""
    if peer.get("ipBlock"):
        return None
    if peer.get("namespaceSelector") is not None:
        labels = peer["namespaceSelector"].get("matchLabels") or {}
        namespace = labels.get("kubernetes.io/metadata.name", "")
        # All of a namespace is whoever is there, others' pods too.
        if namespace not in cluster.namespaces or not peer.get("podSelector"):
            return None
    return cluster.selected(namespace, peer.get("podSelector"))


CHECKS: tuple[Callable[[Cluster], Iterator[BrokenReference]], ...] = (
    _unresolved_keys,
    _unresolved_templates,
    _unresolved_objects,
    _bad_mounts,
    _bad_probes,
    _dead_services,
    _dead_addresses,
    _dead_routes,
    _missing_variables,
    _dead_data_sources,
    _own_selectors,
    _dead_policies,
)
