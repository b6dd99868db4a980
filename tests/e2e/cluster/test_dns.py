"""Pods resolve names through a cache on the node, where a network enforces policies.

What GKE's networks make of a query is made here by hand: a CoreDNS on the host's network answers
at an address that is no pod's (as NodeLocal DNSCache does with Calico, and Cloud DNS), and one in a
pod `k8s-app: node-local-dns` (what Dataplane V2 hands queries to). The rendered policies of each
release are put into a namespace of their own, beside pods that are told to ask one resolver each.

"Not resolved" is a claim of absence: the same pods resolve by kube-dns at the same time, and by the
caches under the rules as they are now.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from tests.e2e.cluster.objects import namespace

from stackproof.helm.manifests import thaw
from stackproof.kube.client import Kube
from stackproof.kube.probes import dial, probe_pod, running
from stackproof.repo.checkout import Checkout
from stackproof.repo.tenants import load_registry
from stackproof.stack.kind import KindStack

ME = load_registry(Checkout.find()).names[0]
SYSTEM = "kube-system"
NAME = "gateway.observability.svc.cluster.local:8080"
KUBE_DNS, ON_THE_HOST, ON_THE_NODE = "kube-dns", "a cache on the host's network", "node-local-dns"
SETTLED_S = 60.0

#: Rules, and which resolvers answer under them.
OLD: Mapping[str, Any] = {"pods": ["kube-dns"], "cidrs": ["169.254.20.10/32"]}
RULES: Mapping[str, tuple[Mapping[str, Any] | None, set[str]]] = {
    "as they were": (OLD, {KUBE_DNS}),
    "as they are": (None, {KUBE_DNS, ON_THE_HOST, ON_THE_NODE}),
    "pods only": ({"cidrs": []}, {KUBE_DNS, ON_THE_NODE}),
    "one pod and addresses": ({"pods": ["kube-dns"]}, {KUBE_DNS, ON_THE_HOST, ON_THE_NODE}),
}


@pytest.fixture(scope="module")
def resolvers(kind: KindStack) -> Iterator[dict[str, str]]:
    """The address of each resolver: the caches run as long as the module does."""
    kube = kind.kube
    service = kube.get("v1", "Service", "kube-dns", SYSTEM)["spec"]["clusterIP"]
    (node,) = kube.listed("v1", "Node")
    host = next(
        one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"
    )
    made = kube.get("apps/v1", "Deployment", "coredns", SYSTEM)
    image = made["spec"]["template"]["spec"]["containers"][0]["image"]
    with ExitStack() as stack:
        found = {KUBE_DNS: service}
        for what, labels, bound in (
            (ON_THE_HOST, {"probe": "cache"}, host),
            (ON_THE_NODE, {"k8s-app": "node-local-dns"}, ""),
        ):
            name = stack.enter_context(running(kube, _cache(kube, image, labels, bound, service)))
            found[what] = kube.get("v1", "Pod", name, SYSTEM)["status"]["podIP"]
        yield found


def _cache(
    kube: Kube, image: str, labels: Mapping[str, str], bound: str, upstream: str
) -> dict[str, Any]:
    """Return a CoreDNS that asks kube-dns; on the host's network if it is bound to its address."""
    name = f"cache-{secrets.token_hex(4)}"
    bind = f"bind {bound}\n" if bound else ""
    corefile = f".:53 {{\n{bind}errors\nforward . {upstream}\n}}\n"
    metadata = {"name": name, "namespace": SYSTEM}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "labels": dict(labels)},
        "spec": {
            "hostNetwork": bool(bound),
            "dnsPolicy": "Default",
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "coredns",
                    "image": image,
                    "args": ["-conf", "/etc/coredns/Corefile"],
                    "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
                }
            ],
            "volumes": [{"name": "config", "configMap": {"name": name}}],
        },
    }
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {"Corefile": corefile},
        }
    )
    return pod


@pytest.fixture
def askers(kind: KindStack, resolvers: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """A namespace, and in it a pod for each resolver, which asks that alone."""
    kube, image = kind.kube, kind.choices["standin"].reference
    with namespace(kube, f"names-{secrets.token_hex(3)}") as space, ExitStack() as stack:
        found = {}
        for what, address in resolvers.items():
            pod = probe_pod(image, space)
            pod["spec"] |= {"dnsPolicy": "None", "dnsConfig": {"nameservers": [address]}}
            found[what] = stack.enter_context(running(kube, pod))
        yield space, found


@pytest.mark.parametrize("chart", ["lgtm", "open-webui-stack"])
def test_pods_resolve_where_the_rules_say(
    kind: KindStack, chart: str, askers: tuple[str, dict[str, str]]
) -> None:
    """Rules for pods of kube-dns alone leave pods without names where a cache answers."""
    space, pods = askers
    kube = kind.kube
    for rules, (values, wanted) in RULES.items():
        for policy in _policies(kind, chart, values, space):
            kube.apply(policy)
        seen: dict[str, str] = {}

        def settled(wanted: set[str] = wanted, seen: dict[str, str] = seen) -> bool:
            for what, pod in pods.items():
                seen[what] = dial(kube, pod, space, "probe", [NAME])[NAME]
            return {what for what, said in seen.items() if _resolved(said)} == wanted

        kube.until(
            settled,
            within_s=SETTLED_S,
            what=f"{chart}, rules {rules}: names come from {sorted(wanted)} and nobody else",
            seen=lambda seen=seen: "\n".join(f"{w}: {s}" for w, s in seen.items()),  # type: ignore[misc]
        )
        print(f"{chart}, rules {rules}:", *(f"\n  {w}: {s}" for w, s in seen.items()))


def _resolved(said: str) -> bool:
    """A pod that knows the address is kept from it, or reaches it; one that does not says so."""
    return not said.startswith("unknown")


def _policies(
    kind: KindStack, chart: str, values: Mapping[str, Any] | None, space: str
) -> list[dict[str, Any]]:
    """Return what a release's chart makes for all pods of its namespace, for another namespace."""
    layer = [{"networkPolicy": {"dns": values}}] if values else []
    if chart == "lgtm":
        release = kind.deployment.with_values(lgtm=layer).lgtm()
    else:
        release = kind.deployment.with_values(tenant=layer).tenant(ME)
    found = [thaw(m.content) for m in release.of_kind("NetworkPolicy")]
    whole = [one for one in found if not one["spec"]["podSelector"]]
    assert len(whole) == 2, "one that closes everything, and one that lets names be asked for"
    for one in whole:
        one["metadata"]["namespace"] = space
    return whole
