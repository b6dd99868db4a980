"""What must hold on the clusters that the deployment is meant for: GKE in its kinds, and kind.

A NetworkPolicy is written once, and each network sees another packet when a pod asks for the same
thing. What a network sees is stated here as a fact with its source; the deployment's policies are
then evaluated against it as Kubernetes does (`network`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from stackproof.helm.externals import read_values
from stackproof.helm.manifests import at
from stackproof.helm.references import Cluster, PodTemplate

from . import Rules, backups
from .deployment import RenderedDeployment
from .network import KUBELET_PORT, Peer, Policies

PLATFORM: Rules[RenderedDeployment] = Rules()
PLATFORM.register(backups.every_database_is_dumped)
PLATFORM.register(backups.dumps_outlive_the_database)


@dataclass(frozen=True, slots=True)
class Resolver:
    """Whom a policy sees a pod ask for names."""

    network: str
    peer: Peer
    why: str


def _pod(app: str) -> Peer:
    return Peer("kube-system", {"k8s-app": app})


_CACHE_AT_THE_SERVICE = "its cache answers at the address of the Service kube-dns, not translated"
#: docs.cloud.google.com/kubernetes-engine/docs/how-to/nodelocal-dns-cache and …/cloud-dns;
#: GoogleCloudPlatform/anthos-security-blueprints, restricting-traffic/README-nodelocaldns.md;
#: world-federation-of-advertisers/cross-media-measurement#3569; tektoncd/operator#4000. Addresses
#: of Services: stackrox/stackrox#11781 (GKE's own range since 1.29), else the cluster's owner's.
RESOLVERS = (
    Resolver("kind", _pod("kube-dns"), "the Service's address is translated before policies look"),
    Resolver(
        "GKE Standard or Autopilot with Dataplane V2",
        _pod("node-local-dns"),
        "it hands queries to the cache's pod on the node",
    ),
    *(
        Resolver(f"GKE Standard with Calico{where}", Peer(address=address), _CACHE_AT_THE_SERVICE)
        for where, address in (
            ("", "34.118.224.10"),
            (" and Services in 10.0.0.0/8", "10.52.0.10"),
            (" and Services in 172.16.0.0/12", "172.20.0.10"),
            (" and Services in 192.168.0.0/16", "192.168.0.10"),
            (" and Services in 100.64.0.0/10", "100.64.0.10"),
        )
    ),
    Resolver(
        "GKE with Cloud DNS",
        Peer(address="169.254.169.254"),
        "the node's metadata server answers, which is no pod",
    ),
    Resolver(
        "GKE with Cloud DNS and NodeLocal DNSCache (Autopilot)",
        Peer(address="169.254.20.10"),
        "pods are told the cache's own address",
    ),
)


@PLATFORM.register
def names_are_resolved_on_every_network(deployed: RenderedDeployment) -> Iterator[str]:
    """Wherever it runs, every pod may ask whoever resolves names there, by UDP and by TCP."""
    cluster = deployed.cluster
    policies = Policies(cluster)
    for namespace in sorted({pod.namespace for pod in cluster.pods}):
        pods = [pod for pod in cluster.pods if pod.namespace == namespace]
        for resolver in RESOLVERS:
            for protocol in ("UDP", "TCP"):
                cut = [
                    pod.workload.ref
                    for pod in pods
                    if not policies.let_out(pod, resolver.peer, 53, protocol)
                ]
                if cut:
                    asked = resolver.peer.address or f"pods {dict(resolver.peer.labels)}"
                    yield (
                        f"{namespace}: on {resolver.network} no egress rule lets {', '.join(cut)} "
                        f"ask {asked} for names by {protocol}: {resolver.why}"
                    )


#: Where a policy sees a pod call the Kubernetes API, its endpoint and not its Service:
#: docs.cloud.google.com/kubernetes-engine/docs/concepts/network-isolation: a private endpoint is in
#: the subnet of the nodes, in clusters made before 2024 in a range of its own. kind: Docker's net.
APIS = (
    ("GKE with a private endpoint in the nodes' subnet", "10.164.0.2", 443),
    ("GKE with a private endpoint in a range of its own", "172.16.0.2", 443),
    ("kind", "172.18.0.2", 6443),
)
_INTERNET = Peer(address="1.1.1.1")


@PLATFORM.register
def the_kubernetes_api_is_not_the_internet(deployed: RenderedDeployment) -> Iterator[str]:
    """Who asks the Kubernetes API reaches it, and with its token does not reach the internet."""
    cluster = deployed.cluster
    policies = Policies(cluster)
    for pod in cluster.pods:
        if pod.spec.get("automountServiceAccountToken") is not True:
            continue
        who = f"{pod.workload.ref} in {pod.namespace}"
        for where, address, port in APIS:
            if not policies.let_out(pod, Peer(address=address), port):
                asked = f"the Kubernetes API, at {address}:{port}"
                yield f"{who}: on {where} no egress rule lets it ask {asked}"
        for port in sorted({port for _, _, port in APIS}):
            if policies.let_out(pod, _INTERNET, port):
                yield f"{who} has a token of the Kubernetes API, and the internet on port {port}"


#: To Cilium nodes have identities of their own, which no block of addresses matches unless it is
#: told so (docs.cilium.io, "Selecting nodes with CIDR / ipBlock"; cilium/cilium#12277, #46571).
KUBELETS = (
    ("kind and GKE Standard with Calico", Peer(address="10.164.0.15")),
    ("GKE Standard or Autopilot with Dataplane V2", Peer()),
)
_ASKS_KUBELETS = re.compile(r'role\s*=\s*"node"')


@PLATFORM.register
def kubelets_are_reached_on_every_network(deployed: RenderedDeployment) -> Iterator[str]:
    """Who measures volumes reaches every node's kubelet, and nobody else does."""
    cluster = deployed.cluster
    policies = Policies(cluster)
    for pod in cluster.pods:
        asks = any(_ASKS_KUBELETS.search(text) for text in _mounted(cluster, pod))
        for where, kubelet in KUBELETS:
            may = policies.let_out(pod, kubelet, KUBELET_PORT)
            if asks and not may:
                yield (
                    f"{pod.workload.ref} in {pod.namespace}: on {where} no egress rule lets it ask "
                    f"the kubelets, at port {KUBELET_PORT} of each node"
                )
            elif may and not asks:
                yield f"{pod.workload.ref} in {pod.namespace} may ask kubelets without a reason"


def _mounted(cluster: Cluster, pod: PodTemplate) -> Iterator[str]:
    """Yield the files of a pod that ConfigMaps hold."""
    for volume in pod.spec.get("volumes") or ():
        made = cluster.find("ConfigMap", pod.namespace, at(volume, "configMap.name"))
        yield from (made.get("data") or {}).values() if made else ()


@PLATFORM.register
def both_charts_mean_the_same_resolvers(deployed: RenderedDeployment) -> Iterator[str]:
    """Both charts take the same block of values for whom pods ask, with the same defaults."""
    charts = deployed.deployment.checkout.charts
    found = {
        chart: (read_values(charts / chart / "values.yaml").get("networkPolicy") or {}).get("dns")
        for chart in ("lgtm", "open-webui-stack")
    }
    if found["lgtm"] != found["open-webui-stack"] or not found["lgtm"]:
        yield f"networkPolicy.dns: {found}"
