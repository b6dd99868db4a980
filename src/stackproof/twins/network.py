"""Faults of who reaches whom: on the clusters that this is meant for, and where ways lead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .base import Edit, Layer, Twin, edited, in_flux, in_lgtm, in_tenant

_CACHE, _CLOUD_DNS = "169.254.20.10/32", "169.254.169.254/32"
_SERVICES = ("34.118.224.0/20", "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")


def _deaf(
    network: str, fault: str, reason: str, *, pods: Sequence[str], cidrs: Sequence[str]
) -> Iterator[Twin]:
    """The resolvers of one network left out, in each chart."""
    values = {"networkPolicy": {"dns": {"pods": pods, "cidrs": cidrs}}}
    for chart, where in (("lgtm", "observability"), ("tenant", "open-webui")):
        yield Twin(
            name=f"no-names-on-{network}-{chart}",
            fault=f"{where}: {fault}",
            layer=Layer.UNIT,
            caught_by="platform.names-are-resolved-on-every-network",
            reason=rf"{where}: on GKE {reason}",
            lgtm=values if chart == "lgtm" else {},
            tenant=values if chart == "tenant" else {},
        )


_NAMES = (
    *_deaf(
        "dataplane-v2",
        "pods may ask kube-dns, and not the cache that Dataplane V2 hands queries to",
        r"Standard or Autopilot with Dataplane V2 no egress rule lets .* ask pods .*node-local-dns",
        pods=["kube-dns"],
        cidrs=[_CACHE, _CLOUD_DNS, *_SERVICES],
    ),
    *_deaf(
        "calico",
        "pods may ask kube-dns, and not the address of its Service, where the cache answers",
        r"Standard with Calico no egress rule lets .* ask 34\.118\.224\.10 .*not translated",
        pods=["kube-dns", "node-local-dns"],
        cidrs=[_CACHE, _CLOUD_DNS],
    ),
    *_deaf(
        "cloud-dns",
        "pods may ask pods only, where the node's metadata server answers",
        r"with Cloud DNS no egress rule lets .* ask 169\.254\.169\.254 .*no pod",
        pods=["kube-dns", "node-local-dns"],
        cidrs=[_CACHE, *_SERVICES],
    ),
)

_OPEN = "invariants.what-policies-close-they-open"
#: The ways in by a gateway of the Gateway API, and by GKE's load balancer.
_ROUTE: dict[str, Any] = {
    "enabled": True,
    "parentRefs": [{"name": "public", "namespace": "gateways"}],
    "allowFrom": [{"namespace": "gateways"}],
    "host": "chat.soev.ai",
}
_GRAFANA_ROUTE = _ROUTE | {"host": "grafana.soev.ai"}
_HALF = _ROUTE | {"allowFrom": [{"cidr": "130.211.0.0/22"}]}

_WAYS_IN = (
    edited(
        "gateway-is-kept-out",
        "a gateway leads to the application, and the policy lets in the Ingress' controller only",
        _OPEN,
        r"HTTPRoute/open-webui leads to port 8080 .*no ingress rule lets anybody in from outside",
        in_tenant("networkpolicies.yaml", "concat $peers .Values.httpRoute.allowFrom", "$peers"),
        tenant={"ingress": {"enabled": False}, "httpRoute": _ROUTE},
    ),
    edited(
        "gateway-is-kept-out-of-grafana",
        "a gateway leads to Grafana, and the policy lets in the Ingress' controller only",
        _OPEN,
        r"HTTPRoute/grafana leads to port 3000 of .*no ingress rule lets anybody in from outside",
        in_lgtm(
            "networkpolicies.yaml", "concat $peers .Values.grafana.httpRoute.allowFrom", "$peers"
        ),
        lgtm={"grafana": {"ingress": {"enabled": False}, "httpRoute": _GRAFANA_ROUTE}},
    ),
    edited(
        "gateway-component-is-kept-out",
        "the application calls the search gateway, and the gateway's policy does not let it in",
        _OPEN,
        r"Deployment/open-webui in .* calls port 8000 of Deployment/open-webui-gateway .*ingress",
        in_tenant(
            "networkpolicies.yaml",
            "{{- if eq .to $component }}",
            '{{- if and (eq .to $component) (ne .to "gateway") }}',
        ),
        tenant={"gateway": {"enabled": True, "image": {"tag": "1.0.0"}}},
    ),
    edited(
        "health-checks-are-kept-out",
        "one of the two ranges of GKE's load balancers and health checks may call the application",
        _OPEN,
        r"HTTPRoute/open-webui .*only a part of the load balancers' addresses",
        tenant={"ingress": {"enabled": False}, "httpRoute": _HALF},
    ),
    edited(
        "challenge-is-kept-out",
        "the namespace is closed to the pod by which cert-manager proves the host: the tenant's "
        "certificate ends after three months, and a new tenant never has one",
        _OPEN,
        r"Ingress/open-webui gets its certificate from cert-manager, .*HTTP-01 .*port 8089",
        in_tenant("networkpolicies.yaml", "port: 8089", "port: 8080"),
        tenant={
            "ingress": {
                "enabled": True,
                "host": "chat.soev.ai",
                "tlsSecret": "tls",
                "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt-prod"},
            }
        },
    ),
    edited(
        "challenge-is-kept-out-of-grafana",
        "the same for Grafana",
        _OPEN,
        r"Ingress/grafana gets its certificate from cert-manager, .*HTTP-01 .*port 8089",
        in_lgtm("networkpolicies.yaml", '.io/http01-solver: "true"', '.io/http01-solver: "false"'),
    ),
    edited(
        "nobody-may-come-in",
        "a gateway leads to the application, but no peer may connect through it",
        "render",
        r"httpRoute/allowFrom.*minItems",
        tenant={"httpRoute": {**_ROUTE, "allowFrom": []}},
        layer=Layer.SCHEMA,
    ),
    edited(
        "route-to-no-port",
        "the HTTPRoute leads to a port that the Service does not have",
        "invariants.references-resolve",
        r"HTTPRoute/open-webui .*the Service open-webui has no port 80$",
        in_tenant("ingress.yaml", "port: 8080", "port: 80"),
        tenant={"httpRoute": _ROUTE},
    ),
    edited(
        "route-of-another-channel",
        "the HTTPRoute has a field of the experimental channel, which clusters drop in silence",
        "invariants.schema-valid",
        r"HTTPRoute/open-webui.*'retry'",
        in_tenant("ingress.yaml", "port: 8080\n", "port: 8080\n      retry: {attempts: 2}\n"),
        tenant={"httpRoute": _ROUTE},
    ),
    edited(
        "tenant-on-grafanas-host",
        "a tenant serves the host where the administrators' Grafana asks for passwords",
        "flux.hosts-are-apart",
        r"Ingress/open-webui .*serves grafana\.soev\.ai, as does .*Ingress/grafana in ",
        in_flux("tenants/enterprise-a/tenant.yaml", "HOST: enterprise-a", "HOST: grafana"),
    ),
    edited(
        "two-tenants-routes-of-one-host",
        "two tenants' HTTPRoutes serve the same host",
        "flux.tenants-share-nothing",
        r"host chat\.soev\.ai is used by several tenants",
        Edit(
            "charts/open-webui-stack/values-prod.yaml",
            "ingress:\n",
            "httpRoute:\n  enabled: true\n  host: chat.soev.ai\n  parentRefs: [{name: public}]\n"
            "  allowFrom: [{namespace: gateways}]\ningress:\n",
        ),
    ),
    edited(
        "route-without-the-right",
        "a tenant's release has an HTTPRoute, which its account may not make",
        "flux.accounts-may-what-they-need",
        r"ServiceAccount/flux in open-webui: may not create httproutes of gateway\.networking",
        Edit(
            "charts/open-webui-stack/values-prod.yaml",
            "ingress:\n",
            "httpRoute:\n  enabled: true\n  parentRefs: [{name: public}]\n"
            "  allowFrom: [{namespace: gateways}]\ningress:\n",
        ),
        in_flux("base/open-webui/rbac.yaml", "resources: [httproutes]", "resources: [tcproutes]"),
    ),
)

_KUBERNETES_API = (
    edited(
        "token-and-the-internet",
        "Alloy, which has a token of the Kubernetes API, may call the whole internet",
        "render",
        r"networkPolicy/kubernetesApiCidrs/0.*does not match",
        tenant={"networkPolicy": {"kubernetesApiCidrs": ["0.0.0.0/0"]}},
        layer=Layer.SCHEMA,
    ),
    edited(
        "token-and-half-the-internet",
        "the internet in two halves, which no schema sees",
        "platform.the-kubernetes-api-is-not-the-internet",
        r"Deployment/open-webui-alloy in .* has a token of the Kubernetes API, and the internet",
        tenant={"networkPolicy": {"kubernetesApiCidrs": ["0.0.0.0/1", "128.0.0.0/1"]}},
    ),
    edited(
        "pod-logs-of-a-made-up-address",
        "the address of the Kubernetes API is made up: Alloy collects no pod logs",
        "platform.the-kubernetes-api-is-not-the-internet",
        r"on GKE with a private endpoint .* no egress rule lets it ask the Kubernetes API",
        tenant={"networkPolicy": {"kubernetesApiCidrs": ["192.0.2.1/32"]}},
    ),
)

_KUBELETS = (
    edited(
        "kubelets-by-address",
        "the monitor may ask the nodes' addresses, which are none to Dataplane V2: volumes that "
        "fill up are not seen",
        "platform.kubelets-are-reached-on-every-network",
        r"Deployment/monitor in .*: on GKE .*Dataplane V2 no egress rule lets it ask the kubelets",
        in_lgtm(
            "networkpolicies.yaml",
            "    - ports:\n        - {protocol: TCP, port: 10250}",
            "    - to:\n        - ipBlock: {cidr: 10.0.0.0/8}\n"
            "      ports:\n        - {protocol: TCP, port: 10250}",
        ),
    ),
    edited(
        "kubelets-for-nobody",
        "the monitor may ask kubelets although it measures no volumes",
        "platform.kubelets-are-reached-on-every-network",
        r"Deployment/monitor in observability may ask kubelets without a reason",
        in_lgtm("networkpolicies.yaml", "- if .Values.monitor.volumes.enabled }}", "- if true }}"),
        lgtm={"monitor": {"volumes": {"enabled": False}}},
    ),
)

_REPLICAS = (
    edited(
        "gateway-on-one-node",
        "both pods of the gateway may be on one node, and go with it",
        "invariants.replicas-are-apart",
        r"Deployment/gateway: all of its replicas may be on the node that goes",
        in_lgtm("gateway.yaml", "topologyKey: kubernetes.io/hostname", "topologyKey: zone"),
    ),
    edited(
        "searches-on-one-node",
        "the pods of a tenant's search keep away from other pods than their own",
        "invariants.replicas-are-apart",
        r"Deployment/open-webui-searxng: all of its replicas may be on the node that goes",
        in_tenant("_helpers.tpl", "$root $as) | nindent 10", '$root "postgres") | nindent 10'),
        tenant={"searxng": {"replicaCount": 2}},
    ),
    edited(
        "gateway-without-a-budget",
        "a drain may take both pods of the gateway at once",
        "invariants.budgets-let-nodes-drain",
        r"Deployment/gateway has 2 replicas and no PodDisruptionBudget",
        in_lgtm("gateway.yaml", "kind: PodDisruptionBudget", "kind: ConfigMap"),
    ),
)

NETWORK: tuple[Twin, ...] = (
    *_NAMES,
    *_WAYS_IN,
    *_KUBERNETES_API,
    *_KUBELETS,
    *_REPLICAS,
    edited(
        "span-metrics-go-nowhere",
        "scaled out, Tempo writes its span metrics to a namespace that Mimir is not in",
        "deployment.what-is-scaled-out-finds-itself",
        r"tempo-values\.yaml: mimir-gateway\.observability\.svc: .* installs mimir into backends",
        Edit("observability/scale-out/tempo-values.yaml", ".backends.svc", ".observability.svc"),
    ),
    edited(
        "one-copy-of-each-line",
        "scaled out, Loki writes each line to one ingester: with that, it is gone",
        "deployment.what-is-scaled-out-survives-an-ingester",
        r"loki-values\.yaml: loki\.commonConfig\.replication_factor is 1: of fewer than 3 copies",
        Edit("observability/scale-out/loki-values.yaml", "factor: 3", "factor: 1"),
    ),
    edited(
        "one-ingester",
        "scaled out, Tempo has one ingester: with that, all that is not in the store yet is gone",
        "deployment.what-is-scaled-out-survives-an-ingester",
        r"tempo-values\.yaml: ingester\.replicas is 1: of fewer than 3, none may fail",
        Edit(
            "observability/scale-out/tempo-values.yaml",
            "ingester:\n  replicas: 3",
            "ingester:\n  replicas: 1",
        ),
    ),
)
