"""References in rendered releases: a sound deployment has no problem, and each fault has one."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import yaml
from tests.edits import DELETE, edit

from stackproof.helm import endpoints
from stackproof.helm.endpoints import Endpoint
from stackproof.helm.manifests import Manifest, Release
from stackproof.helm.references import Externals, check

Objects = dict[str, dict[str, Any]]
"""Contents by KIND/NAME."""

#: A release in namespace `front` that uses all there is to use.
WEB = """\
Deployment/web:
  spec:
    selector: {matchLabels: {app: web}}
    template:
      metadata: {labels: {app: web}}
      spec:
        serviceAccountName: web
        containers:
          - name: main
            ports: [{name: http, containerPort: 8000}]
            readinessProbe: {httpGet: {port: http}}
            envFrom: []
            env:
              - {name: LISTEN, value: "::"}
              - {name: PORT, value: "8080"}
              - {name: BACKEND_URL, value: "http://backend.data.svc:$(PORT)/api"}
              - {name: PEER, value: "web:80"}
              - {name: OUTSIDE, value: "https://api.example.com/v1"}
              - {name: PASSWORD, valueFrom: {secretKeyRef: {name: made, key: password}}}
              - {name: TOKEN, valueFrom: {secretKeyRef: {name: fetched, key: token}}}
            volumeMounts: [{name: config, mountPath: /etc/web}, {name: data, mountPath: /data}]
        volumes:
          - {name: config, configMap: {name: config, items: [{key: web.yaml}]}}
          - {name: data, persistentVolumeClaim: {claimName: data}}
ServiceAccount/web: {}
PersistentVolumeClaim/data: {}
ConfigMap/config:
  data:
    web.yaml: |
      # see http://nothing-like-it.other.svc:1/ (a comment is no reference)
      listen: ${LISTEN}
      level: ${LEVEL:warn}
      remote: http://backend.data.svc:8080/push
      self: localhost:9
ConfigMap/grafana:
  data:
    board.json: >-
      {"panels": [{"datasource": {"uid": "metrics"}}, {"datasource": {"uid": "${picked}"}}]}
    datasources.yaml: |
      datasources:
        - {name: Metrics, uid: metrics, url: "$BACKEND_URL/prometheus"}
        - name: Traces
          uid: traces
          jsonData:
            serviceMap: {datasourceUid: metrics}
            tracesToLogsV2: {datasourceUid: metrics}
Secret/made:
  data: {password: eA==}
  stringData: {url: "postgresql://me:secret@backend.data:8080/db"}
ExternalSecret/keys:
  spec:
    secretStoreRef: {kind: ClusterSecretStore, name: store}
    target:
      name: fetched
      template: {data: {token: 't-{{ index . "raw" }}-{{ .other | b64enc }}'}}
    data:
      - {secretKey: raw, remoteRef: {key: a}}
      - {secretKey: other, remoteRef: {key: b}}
Service/web:
  spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
Ingress/web:
  spec: {rules: [{http: {paths: [{backend: {service: {name: web, port: {name: http}}}}]}}]}
HorizontalPodAutoscaler/web: {spec: {scaleTargetRef: {kind: Deployment, name: web}}}
PodDisruptionBudget/web: {spec: {selector: {matchLabels: {app: web}}}}
Role/web: {}
RoleBinding/web:
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: web}
  subjects: [{kind: ServiceAccount, name: web}]
NetworkPolicy/web:
  spec:
    podSelector: {matchLabels: {app: web}}
    ingress:
      - {from: [{podSelector: {}}], ports: [{port: http}]}
      - {from: [{namespaceSelector: {}}], ports: [{port: 8000}]}
    egress:
      - to:
          - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: data}}
            podSelector: {matchExpressions: [{key: app, operator: In, values: [backend]}]}
        ports: [{port: 9000}]
      - {to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 443}]}
"""
#: One in namespace `data` that the other one talks to.
BACKEND = """\
StatefulSet/backend:
  spec:
    serviceName: backend
    template:
      metadata: {labels: {app: backend}}
      spec: {containers: [{name: main, ports: [{containerPort: 9000}]}]}
Service/backend: {spec: {selector: {app: backend}, ports: [{port: 8080, targetPort: 9000}]}}
"""


def web() -> Objects:
    objects: Objects = yaml.safe_load(WEB)
    return objects


def backend() -> Objects:
    objects: Objects = yaml.safe_load(BACKEND)
    return objects


def release(objects: Objects, namespace: str) -> Release:
    return Release(namespace, namespace, "1.37.0", tuple(manifests(objects, namespace)))


def manifests(objects: Objects, namespace: str) -> Iterable[Manifest]:
    for ref, content in objects.items():
        kind, _, name = ref.partition("/")
        whole = {"kind": kind, "metadata": {"name": name}, **copy.deepcopy(content)}
        yield Manifest.of(whole, "t.yaml", namespace=namespace)


STORE = Externals(objects=frozenset({("ClusterSecretStore", "store")}))


def problems(front: Objects, data: Objects, externals: Externals = STORE) -> list[str]:
    found = check([release(front, "front"), release(data, "data")], externals)
    return [f"{p.check}: {p}" for p in found]


_SPEC = "Deployment/web|spec|template|spec"
_MAIN = f"{_SPEC}|containers|0"
_REF = "valueFrom|secretKeyRef"


def env(name: str) -> str:
    """Return the path of a variable of the front's container."""
    names = re.findall(r"- \{name: ([A-Z_]+), value", WEB)
    return f"{_MAIN}|env|{names.index(name)}"


def replaced(old: str, new: str) -> Callable[[str], str]:
    """Replace a text in what stands there."""

    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


def test_a_sound_deployment_has_no_problem() -> None:
    assert problems(web(), backend()) == []


FAULTS: dict[str, tuple[str, Any, str]] = {
    "secret-key": (
        f"{env('PASSWORD')}|{_REF}|key",
        "no",
        r"key: .*env\[PASSWORD\]: the Secret made has no key no; it has password, url",
    ),
    "secret": (f"{env('PASSWORD')}|{_REF}|name", "no", "key: .*nothing makes the Secret no"),
    "external-key": (
        f"{env('TOKEN')}|{_REF}|key",
        "raw",
        "key: .*the Secret fetched has no key raw; it has token",
    ),
    "template-key": (
        "ExternalSecret/keys|spec|data|1",
        DELETE,
        "key: .*the template uses other, which is not fetched",
    ),
    "config-key": (
        "ConfigMap/config|data",
        lambda data: {"web.yml": data["web.yaml"]},
        "key: .*the ConfigMap config has no key web.yaml",
    ),
    "env-from": (
        f"{_MAIN}|envFrom|+",
        {"configMapRef": {"name": "no"}},
        "key: .*envFrom: nothing makes the ConfigMap no",
    ),
    "pull-secret": (
        f"{_SPEC}|imagePullSecrets",
        [{"name": "registry"}],
        "key: .*imagePullSecrets: nothing makes the Secret registry",
    ),
    "claim": ("PersistentVolumeClaim/data", DELETE, "object: .*PersistentVolumeClaim data"),
    "role": ("Role/web", DELETE, "object: .*roleRef: nothing makes the Role web"),
    "role-group": (
        "RoleBinding/web|roleRef|apiGroup",
        "rbac",
        "object: .*roleRef: the apiGroup must be rbac.authorization.k8s.io",
    ),
    "subject": (
        "RoleBinding/web|subjects|0|name",
        "no",
        "object: .*subjects: nothing makes the ServiceAccount no",
    ),
    "scale-target": (
        "HorizontalPodAutoscaler/web|spec|scaleTargetRef|name",
        "no",
        "object: .*scaleTargetRef: nothing makes the Deployment no",
    ),
    "store": (
        "ExternalSecret/keys|spec|secretStoreRef|name",
        "no",
        "object: .*nothing makes the ClusterSecretStore no",
    ),
    "mount": (
        f"{_MAIN}|volumeMounts|+",
        {"name": "no", "mountPath": "/no"},
        "mount: .*the pod has no volume no",
    ),
    "unmounted": (
        f"{_MAIN}|volumeMounts|1",
        DELETE,
        r"mount: .*volumes\[data\]: nothing mounts it",
    ),
    "probe": (
        f"{_MAIN}|readinessProbe|httpGet|port",
        "no",
        "probe: .*readinessProbe: the container has no port no",
    ),
    "target-port": (
        "Service/web|spec|ports|0|targetPort",
        81,
        "service: .*targetPort: Deployment/web has no port 81",
    ),
    "service-selector": ("Service/web|spec|selector|app", "no", "service: .*selects no pod"),
    "url-port": (
        f"{env('PORT')}|value",
        "8081",
        r"address: .*env\[BACKEND_URL\]: .*the Service has no port 8081, but 8080",
    ),
    "url-service": (
        f"{env('BACKEND_URL')}|value",
        "http://bakend.data.svc:8080",
        "address: .*there is no Service bakend in data",
    ),
    "url-namespace": (
        f"{env('BACKEND_URL')}|value",
        "http://backend.front.svc.cluster.local:8080",
        "address: .*there is no Service backend in front",
    ),
    "host-port": (f"{env('PEER')}|value", "web:81", r"address: .*env\[PEER\]: .*no port 81"),
    "config-url": (
        "ConfigMap/config|data|web.yaml",
        replaced("8080/push", "80/push"),
        r"address: .*ConfigMap/config.*data\[web.yaml\]: .*no port 80, but 8080",
    ),
    "secret-url": (
        "Secret/made|stringData|url",
        "postgresql://me:x@backend.data/db",
        r"address: .*Secret/made.*no port 5432",
    ),
    "ingress-port": (
        "Ingress/web|spec|rules|0|http|paths|0|backend|service|port",
        {"number": 81},
        "route: .*the Service web has no port 81",
    ),
    "variable": (env("LISTEN"), DELETE, "variable: .*has no LISTEN, which .*web.yaml uses"),
    "data-source-link": (
        "ConfigMap/grafana|data|datasources.yaml",
        replaced("serviceMap: {datasourceUid: metrics}", "serviceMap: {datasourceUid: none-such}"),
        "data-source: .*serviceMap.*no data source has the uid none-such",
    ),
    "data-source-twice": (
        "ConfigMap/grafana|data|datasources.yaml",
        replaced("uid: traces", "uid: metrics"),
        "data-source: .*the uid metrics is provisioned 2 times",
    ),
    "dashboard": (
        "ConfigMap/grafana|data|board.json",
        replaced("metrics", "no"),
        r"data-source: .*board.json.*panels\[0\].datasource: no data source has the uid no",
    ),
    "own-selector": (
        "Deployment/web|spec|selector|matchLabels|app",
        "no",
        "selector: .*does not select the workload's own pods",
    ),
    "budget": (
        "PodDisruptionBudget/web|spec|selector|matchLabels|app",
        "no",
        "selector: .*PodDisruptionBudget/web.*selects no pod",
    ),
    "policy": (
        "NetworkPolicy/web|spec|podSelector|matchLabels|app",
        "no",
        "policy: .*podSelector: selects no pod",
    ),
    "policy-peer": (
        "NetworkPolicy/web|spec|ingress|0|from|+",
        {"podSelector": {"matchLabels": {"a": "b"}}},
        r"policy: .*ingress\[0\].from: no pod matches",
    ),
    "policy-peer-elsewhere": (
        "NetworkPolicy/web|spec|egress|0|to|0|podSelector|matchExpressions|0|operator",
        "NotIn",
        r"policy: .*egress\[0\].to: no pod matches",
    ),
    "policy-ingress-port": (
        "NetworkPolicy/web|spec|ingress|1|ports|0|port",
        80,
        r"policy: .*ingress\[1\].ports: no pod of Deployment/web has the port 80",
    ),
    # The classic: a policy sees the pod's port, not the Service's.
    "policy-egress-port": (
        "NetworkPolicy/web|spec|egress|0|ports|0|port",
        8080,
        r"policy: .*egress\[0\].ports: no pod of StatefulSet/backend has the port 8080",
    ),
}


@pytest.mark.parametrize(("path", "value", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_are_found_and_named(path: str, value: Any, message: str) -> None:
    front = web()
    edit(front, path, value)
    (found,) = problems(front, backend())
    assert re.search(message, found)


def test_a_key_that_is_mounted_alone_is_a_reference() -> None:
    front = web()
    edit(front, f"{_SPEC}|volumes|0|configMap", {"name": "config"})
    edit(front, f"{_MAIN}|volumeMounts|0|subPath", "no.yaml")
    (found,) = problems(front, backend())
    assert "the ConfigMap config has no key no.yaml" in found


def test_a_missing_account_is_missed_by_all_who_name_it() -> None:
    front = web()
    del front["ServiceAccount/web"]
    found = problems(front, backend())
    assert len(found) == 2
    assert all("nothing makes the ServiceAccount web" in problem for problem in found)


def test_a_governing_service_that_is_missing() -> None:
    data = backend()
    edit(data, "StatefulSet/backend|spec|serviceName", "no")
    (problem,) = problems(web(), data)
    assert "nothing makes the Service no" in problem


def test_another_release_gone_leaves_its_addresses_dead() -> None:
    found = check([release(web(), "front")], STORE)
    assert {p.check for p in found} == {"address"}
    assert {p.object for p in found} == {"ConfigMap/config", "Deployment/web"}


def test_what_exists_outside_may_be_declared() -> None:
    front = web()
    del front["Secret/made"], front["ServiceAccount/web"]
    externals = Externals(
        keys={("front", "made"): frozenset({"password"})},
        services={("data", "backend"): frozenset({8080})},
        objects=STORE.objects | {("ServiceAccount", "web")},
    )
    assert check([release(front, "front")], externals) == []
    externals = Externals(externals.keys, {("data", "backend"): frozenset({1})}, externals.objects)
    assert {p.check for p in check([release(front, "front")], externals)} == {"address"}


def test_optional_references_may_lead_nowhere() -> None:
    front = web()
    ref = {"name": "no", "key": "no", "optional": True}
    edit(front, f"{_MAIN}|env|+", {"name": "A", "valueFrom": {"secretKeyRef": ref}})
    edit(front, f"{_MAIN}|envFrom|+", {"secretRef": {"name": "no", "optional": True}})
    assert problems(front, backend()) == []


def test_a_store_that_says_its_keys_itself() -> None:
    front = web()
    spec = front["ExternalSecret/keys"]["spec"]
    del spec["target"]["template"]
    spec["dataFrom"] = [{"extract": {"key": "all"}}]
    assert problems(front, backend()) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("http://gateway.observability.svc:8080/otlp", {("gateway.observability.svc", 8080)}),
        ("url: http://web/", {("web", 80)}),
        ('endpoint = "https://a.b.svc.cluster.local"', {("a.b.svc.cluster.local", 443)}),
        ("postgresql://user:{{ .password }}@db:5432/app", {("db", 5432)}),
        ("grpc://tempo.data.svc", {("tempo.data.svc", None)}),
        ("peers = [tempo.data.svc:9095]", {("tempo.data.svc", 9095)}),
        ("address: mimir:9095", {("mimir", 9095)}),
        ("address: 'mimir:9095',", {("mimir", 9095)}),
        ("  # http://comment:1/\n  // http://comment:2/", set()),
        ("http://localhost:1 http://127.0.0.1:2 http://[::1]:3", set()),
        ("http://${HOST}:1 http://{$HOST}:2 $URL/path", set()),
        ("image: postgres:16.11-alpine", set()),
        ("{key: value:10s}", set()),
    ],
)
def test_addresses_in_config_files(text: str, found: set[tuple[str, int | None]]) -> None:
    assert endpoints.in_text(text) == {Endpoint(host, port) for host, port in found}


def test_addresses_in_values() -> None:
    assert endpoints.in_value("a:1,b.c:2") == {Endpoint("a", 1), Endpoint("b.c", 2)}
    assert endpoints.in_value("0.0.0.0:80") == set()
    assert endpoints.in_value("no address: really") == set()


@pytest.mark.parametrize(
    ("host", "service"),
    [
        ("web", ("here", "web")),
        ("web.there", ("there", "web")),
        ("web.com", None),
        ("web.unknown.svc", ("unknown", "web")),
        ("web.unknown.svc.cluster.local", ("unknown", "web")),
        ("api.example.com", None),
    ],
)
def test_which_service_a_name_means(host: str, service: tuple[str, str] | None) -> None:
    assert Endpoint(host, 80).service("here", {"here", "there"}) == service
