"""What an object names is there, and leads where it should."""

from __future__ import annotations

from collections.abc import Iterator

from stackproof.helm.externals import Rendered
from stackproof.helm.manifests import Manifest, containers, pod_labels
from stackproof.helm.uses import named

from .base import INVARIANTS, of_each_object

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
            if other is not m and wanted.items() <= pod_labels(other).items():
                yield f"{m.source}: {m.ref} selects the pods of {other.ref} as well"
    for service in rendered.release.services():
        chosen = service["spec"].get("selector") or {}
        found = [m.ref for m in workloads if chosen and chosen.items() <= pod_labels(m).items()]
        if len(found) > 1:
            yield f"{service.source}: {service.ref} sends to {' and '.join(found)}"


@INVARIANTS.register
def every_pod_is_reached_by_its_service_ports(rendered: Rendered) -> Iterator[str]:
    """Every port that a container names is a port of a Service, if a Service selects its pod."""
    for m in rendered.release.workloads():
        labels = pod_labels(m)
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
    used = {ref for m in release for ref in named(m)}
    for m in release.of_kind("PersistentVolumeClaim", "ConfigMap", "ServiceAccount"):
        if (m.kind, m.name) not in used:
            yield f"{m.source}: {m.ref} is used by nothing"


@INVARIANTS.register
@of_each_object
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
@of_each_object
def protocols_exist(m: Manifest) -> Iterator[str]:
    """Every port of a Service, a container or a policy is of a protocol that there is."""
    spec = m.get("spec") or {}
    ports = list(spec.get("ports") or ()) if m.kind == "Service" else []
    for container in containers(m):
        ports += container.get("ports") or ()
    for direction in ("ingress", "egress") if m.kind == "NetworkPolicy" else ():
        for rule in spec.get(direction) or ():
            ports += rule.get("ports") or ()
    for port in ports:
        if port.get("protocol", "TCP") not in _PROTOCOLS:
            yield f"there is no protocol {port['protocol']}"


@INVARIANTS.register
@of_each_object
def certificates_are_of_the_hosts(m: Manifest) -> Iterator[str]:
    """Every host of an Ingress with TLS is among the hosts of its certificate."""
    if m.kind != "Ingress":
        return
    hosts = {rule.get("host") for rule in m["spec"].get("rules") or ()}
    certified = {host for one in m["spec"].get("tls") or () for host in one.get("hosts") or ()}
    if m["spec"].get("tls") and hosts != certified:
        yield f"serves {sorted(map(str, hosts))} with a certificate of {sorted(certified)}"


_SERVICE_TYPES = {"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"}
