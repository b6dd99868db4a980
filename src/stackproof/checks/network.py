"""NetworkPolicies, evaluated as a cluster does: what is called must get through, and nothing else.

Who calls whom is read off the configuration: the addresses of Services in a pod's variables,
arguments and mounted files, and pairs of variables X_HOST and X_PORT.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from stackproof.helm import endpoints
from stackproof.helm.manifests import Manifest, backends, containers
from stackproof.helm.references import HTTP01_SOLVER, Cluster, PodTemplate, addresses, matches

KUBELET_PORT = 10250


@dataclass(frozen=True, slots=True)
class Call:
    """A pod calls another one."""

    caller: PodTemplate
    callee: PodTemplate
    port: int
    why: str
    """Where the address stands."""

    @property
    def key(self) -> tuple[str, str, int]:
        """Who calls whom on which port."""
        return _id(self.caller), _id(self.callee), self.port


@dataclass(frozen=True, slots=True)
class Peer:
    """What a policy sees of one end of a connection: a pod, or an address that is no pod's.

    With neither it is what only a rule without peers is about.
    """

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""


def _id(pod: PodTemplate) -> str:
    return f"{pod.workload.ref} in {pod.namespace}"


def blocked(cluster: Cluster) -> Iterator[str]:
    """Yield each call between pods of these releases that their NetworkPolicies do not let pass."""
    policies = Policies(cluster)
    for call in _calls(cluster):
        caller, callee, port = call.key
        for end, other, direction in (
            (call.caller, call.callee, "egress"),
            (call.callee, call.caller, "ingress"),
        ):
            if not policies.let_pass(end, other, direction, call.callee, port):
                said = f"{caller} calls port {port} of {callee} ({call.why})"
                yield f"{said}, and no {direction} rule lets it"


def unneeded(cluster: Cluster) -> Iterator[str]:
    """Yield each port of a pod that a policy opens to a pod which is not configured to call it.

    Each end is looked at by itself: that the other end is closed as well is its second lock.
    """
    known = {call.key for call in _calls(cluster)}
    for where, rule, caller, callee in _opened(cluster):
        for port in sorted(set(callee.ports.values())):
            key = (_id(caller), _id(callee), port)
            if key not in known and _has_port(rule, callee, port):
                known.add(key)
                yield f"{key[0]} may call port {port} of {key[1]} without a reason ({where})"


def cut_off(cluster: Cluster) -> Iterator[str]:
    """Yield each call into a namespace that these releases do not know, and no policy names."""
    policies = Policies(cluster)
    for pod in cluster.pods:
        rules = [rule for _, rule in policies.rules(pod, "egress")]
        for where, endpoint in _endpoints(cluster, pod) if policies.ruling(pod, "egress") else ():
            namespace, _ = endpoint.service(pod.namespace, cluster.namespaces) or ("", "")
            if not namespace or namespace in cluster.namespaces:
                continue
            labels = {"kubernetes.io/metadata.name": namespace}
            peers = (peer for rule in rules for peer in rule.get("to") or ())
            spaces = (peer.get("namespaceSelector") for peer in peers)
            if not any(space is not None and matches(space, labels) for space in spaces):
                yield f"{_id(pod)} calls {endpoint.host} ({where}), and no egress rule lets it"


#: In 130.211.0.0/22 and 35.191.0.0/16, from where Google's load balancers and their health checks
#: come (docs.cloud.google.com/load-balancing/docs/firewall-rules): both, or no backend is healthy.
_LOAD_BALANCERS = ("130.211.0.1", "35.191.0.1")


def locked_out(cluster: Cluster) -> Iterator[str]:
    """Yield each way in (Ingress, HTTPRoute) whose traffic does not get to the pods behind it."""
    policies = Policies(cluster)
    for m in cluster.manifests:
        for pod, port in _behind(cluster, m):
            where = f"{m.ref} leads to port {port} of {_id(pod)}"
            if not policies.open_outside(pod, port):
                yield f"{where}, and no ingress rule lets anybody in from outside"
            healthy = [policies.let_in(pod, Peer(address=a), port) for a in _LOAD_BALANCERS]
            if any(healthy) and not all(healthy):
                yield f"{where}, and only a part of the load balancers' addresses may call it"


#: What asks cert-manager for a certificate (cert-manager.io/docs/usage/ingress), and where the pod
#: listens that then proves the host (cert-manager, pkg/issuer/acme/http/http.go).
_ISSUERS = frozenset(
    {"cert-manager.io/cluster-issuer", "cert-manager.io/issuer", "kubernetes.io/tls-acme"}
)
_SOLVER_PORT = 8089


def uncertified(cluster: Cluster) -> Iterator[str]:
    """Yield each Ingress whose certificate is not renewed: nobody reaches the solver."""
    policies = Policies(cluster)
    for m in cluster.manifests:
        if m.kind == "Ingress" and _is_issued(cluster, m):
            prover = solver(m)
            shut = policies.ruling(prover, "ingress")
            known = policies.outsiders(prover, _SOLVER_PORT)
            for pod, port in _behind(cluster, m):
                if shut and any(one not in known for one in policies.outsiders(pod, port)):
                    yield (
                        f"{m.ref} gets its certificate from cert-manager, and who comes in by it "
                        f"may not reach the pod that proves the host by HTTP-01 ({HTTP01_SOLVER}, "
                        f"port {_SOLVER_PORT}): the certificate is not made, or ends unrenewed"
                    )


def _is_issued(cluster: Cluster, ingress: Manifest) -> bool:
    """Tell whether cert-manager makes a certificate of an Ingress: it says so, or a Certificate."""
    secrets = {tls.get("secretName") for tls in ingress["spec"].get("tls") or ()}
    asked = bool(_ISSUERS & ingress.annotations.keys())
    return bool(secrets) and (
        asked
        or any(
            m.kind == "Certificate"
            and m.namespace == ingress.namespace
            and m["spec"].get("secretName") in secrets
            for m in cluster.manifests
        )
    )


def solver(ingress: Manifest) -> PodTemplate:
    """Return the pod that cert-manager starts beside an Ingress to prove its hosts."""
    spec = {"containers": [{"name": "solver", "ports": [{"containerPort": _SOLVER_PORT}]}]}
    template = {"metadata": {"labels": HTTP01_SOLVER}, "spec": spec}
    metadata = {"name": "cm-acme-http-solver", "namespace": ingress.namespace}
    content = {"kind": "Deployment", "metadata": metadata, "spec": {"template": template}}
    return PodTemplate.of(Manifest.of(content, ingress.source))


def _behind(cluster: Cluster, way_in: Manifest) -> Iterator[tuple[PodTemplate, int]]:
    """Yield the pods, and their port, that a way in leads to."""
    for name, wanted in backends(way_in):
        made = cluster.find("Service", way_in.namespace, name)
        for port in (made["spec"].get("ports") or ()) if made else ():
            if made and wanted in {str(port["port"]), port.get("name")}:
                yield from _listening(cluster, made, port)


def _listening(
    cluster: Cluster, service: Manifest, port: Mapping[str, Any]
) -> Iterator[tuple[PodTemplate, int]]:
    """Yield the pods behind a port of a Service, and the port on which they listen."""
    target = str(port.get("targetPort", port["port"]))
    selector = {"matchLabels": service["spec"].get("selector") or {}}
    for pod in cluster.selected(service.namespace or "", selector):
        if target in pod.ports:
            yield pod, pod.ports[target]


def _opened(cluster: Cluster) -> Iterator[tuple[str, Mapping[str, Any], PodTemplate, PodTemplate]]:
    """Yield where a policy lets a pod call another: where, the rule, the caller and the callee."""
    policies = Policies(cluster)
    for end in cluster.pods:
        for direction, side in (("egress", "to"), ("ingress", "from")):
            for policy, rule in policies.rules(end, direction):
                for other in cluster.pods:
                    if other is not end and _names(rule.get(side), policy, _peer(other)):
                        caller, callee = (end, other) if side == "to" else (other, end)
                        yield f"{direction} of {policy.ref}", rule, caller, callee


class Policies:
    """The NetworkPolicies of a cluster; which of them rule a pod is found once."""

    def __init__(self, cluster: Cluster) -> None:
        self._all = [m for m in cluster.manifests if m.kind == "NetworkPolicy"]
        self._ruling: dict[tuple[int, str], list[Manifest]] = {}

    def let_pass(
        self, end: PodTemplate, other: PodTemplate, direction: str, callee: PodTemplate, port: int
    ) -> bool:
        """Tell whether those on one end of a call let it pass: none, or any that has a rule."""
        return self._lets(end, _peer(other), direction, callee.ports, ("TCP", port))

    def let_out(self, pod: PodTemplate, to: Peer, port: int, protocol: str = "TCP") -> bool:
        """Tell whether a pod may call what no release here makes."""
        return self._lets(pod, to, "egress", {}, (protocol, port))

    def let_in(self, pod: PodTemplate, by: Peer, port: int) -> bool:
        """Tell whether a pod's port may be called by what no release here makes."""
        return self._lets(pod, by, "ingress", pod.ports, ("TCP", port))

    def open_outside(self, pod: PodTemplate, port: int) -> bool:
        """Tell whether anybody outside the pod's namespace may call its port."""
        rules = self.rules(pod, "ingress")
        everybody = any(_has_port(rule, pod, port) and not rule.get("from") for _, rule in rules)
        closed = self.ruling(pod, "ingress")
        return not closed or everybody or bool(self.outsiders(pod, port))

    def outsiders(self, pod: PodTemplate, port: int) -> list[Mapping[str, Any]]:
        """Return whom policies let in to a pod's port from outside its namespace."""
        return [
            peer
            for _, rule in self.rules(pod, "ingress")
            if _has_port(rule, pod, port)
            for peer in rule.get("from") or ()
            if "ipBlock" in peer or "namespaceSelector" in peer
        ]

    def _lets(
        self,
        end: PodTemplate,
        other: Peer,
        direction: str,
        names: Mapping[str, int],
        wanted: tuple[str, int],
    ) -> bool:
        side = "from" if direction == "ingress" else "to"
        return not self.ruling(end, direction) or any(
            _carries(rule, names, *wanted) and _names(rule.get(side), policy, other)
            for policy, rule in self.rules(end, direction)
        )

    def ruling(self, pod: PodTemplate, direction: str) -> list[Manifest]:
        """Return those that rule a pod in one direction."""
        key = id(pod), direction
        if key not in self._ruling:
            self._ruling[key] = [p for p in self._all if _rules(p, pod, direction)]
        return self._ruling[key]

    def rules(
        self, pod: PodTemplate, direction: str
    ) -> Iterator[tuple[Manifest, Mapping[str, Any]]]:
        """Yield each rule for a pod in one direction, with its policy."""
        for policy in self.ruling(pod, direction):
            yield from ((policy, rule) for rule in policy["spec"].get(direction) or ())


def _rules(policy: Manifest, pod: PodTemplate, direction: str) -> bool:
    spec = policy["spec"]
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
    return (
        policy.namespace == pod.namespace
        and direction.capitalize() in types
        and matches(spec.get("podSelector"), pod.labels)
    )


def _has_port(rule: Mapping[str, Any], callee: PodTemplate, port: int) -> bool:
    return _carries(rule, callee.ports, "TCP", port)


def _carries(rule: Mapping[str, Any], names: Mapping[str, int], protocol: str, port: int) -> bool:
    """Tell whether a rule is about a port; `names` are those of the pod that listens."""
    ports = rule.get("ports")
    return not ports or any(
        _is_port(one, names, port) for one in ports if one.get("protocol", "TCP") == protocol
    )


def _is_port(one: Mapping[str, Any], names: Mapping[str, int], port: int) -> bool:
    first = one.get("port")
    if isinstance(first, int) and one.get("endPort"):
        return first <= port <= int(one["endPort"])
    return first is None or names.get(str(first), first) == port


def _peer(pod: PodTemplate) -> Peer:
    return Peer(pod.namespace, pod.labels)


def _names(peers: Sequence[Mapping[str, Any]] | None, policy: Manifest, other: Peer) -> bool:
    return not peers or any(_is_peer(peer, policy, other) for peer in peers)


def _is_peer(peer: Mapping[str, Any], policy: Manifest, other: Peer) -> bool:
    if block := peer.get("ipBlock"):
        return _is_inside(block, other.address)  # a pod's address is known to nobody before it runs
    where = peer.get("namespaceSelector")
    if where is None:
        near = other.namespace == policy.namespace
    else:
        near = bool(other.namespace) and matches(
            where, {"kubernetes.io/metadata.name": other.namespace}
        )
    return near and matches(peer.get("podSelector"), other.labels)


def _is_inside(block: Mapping[str, Any], address: str) -> bool:
    if not address or ip_address(address) not in ip_network(block["cidr"], strict=False):
        return False
    return all(ip_address(address) not in ip_network(part) for part in block.get("except") or ())


def _calls(cluster: Cluster) -> Iterator[Call]:
    for caller in cluster.pods:
        for where, endpoint in _endpoints(cluster, caller):
            service = endpoint.service(caller.namespace, cluster.namespaces)
            made = cluster.find("Service", *service) if service else None
            for port in (made["spec"].get("ports") or ()) if made else ():
                if made and endpoint.port in (None, port["port"]):
                    for callee, number in _listening(cluster, made, port):
                        if callee is not caller:
                            yield Call(caller, callee, number, where)


def _endpoints(cluster: Cluster, pod: PodTemplate) -> Iterator[tuple[str, endpoints.Endpoint]]:
    """Yield where and what: the addresses that a pod's own configuration holds.

    A Job that shares an application's ConfigMaps runs a part of it: only its own variables count.
    """
    yield from addresses(pod.workload)
    if pod.workload.kind in {"Job", "CronJob"}:
        return
    for config_map in _config_maps(cluster, pod):
        yield from addresses(config_map)
    variables: dict[str, str] = {}
    for container in containers(pod.workload):
        for config_map in _config_maps(cluster, pod, env_only=True):
            variables |= config_map.get("data") or {}
        variables |= {v["name"]: str(v.get("value") or "") for v in container.get("env") or ()}
    for name, host in variables.items():
        port = variables.get(name.removesuffix("HOST") + "PORT", "")
        if name.endswith("_HOST") and port.isdigit():
            yield f"variable {name}", endpoints.Endpoint(host, int(port))


def _config_maps(
    cluster: Cluster, pod: PodTemplate, *, env_only: bool = False
) -> Iterator[Manifest]:
    names = [
        source["configMapRef"]["name"]
        for container in containers(pod.workload)
        for source in container.get("envFrom") or ()
        if source.get("configMapRef")
    ]
    if not env_only:
        volumes = pod.spec.get("volumes") or ()
        names += [v["configMap"]["name"] for v in volumes if v.get("configMap")]
    for name in names:
        made = cluster.find("ConfigMap", pod.namespace, name)
        if made is not None:
            yield made
