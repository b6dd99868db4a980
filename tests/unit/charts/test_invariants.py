"""Each invariant holds for a small right release, and fails on the fault that it is there for."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from tests.edits import DELETE, edit

from stackproof.checks.invariants import INVARIANTS, broken, problems
from stackproof.flux.deployment import Deployment
from stackproof.helm.externals import ExternalObjects, Rendered
from stackproof.helm.manifests import Manifest, Release
from stackproof.helm.references import Externals
from stackproof.repo.checkout import Checkout

CHECKOUT = Checkout.find()
KUBERNETES = ("1.32.0", "1.37.0")

RIGHT = """
web ConfigMap:
  apiVersion: v1
  data:
    DB_URL: postgres://web@db.here.svc:5432/web
    settings.yaml: "title: Web\\npassword: ${PASSWORD}\\n"
web ServiceAccount: {apiVersion: v1, automountServiceAccountToken: false}
db ServiceAccount: {apiVersion: v1, automountServiceAccountToken: false}
web Service:
  apiVersion: v1
  spec:
    selector: {app.kubernetes.io/component: web}
    ports: [{name: http, port: 80, targetPort: http}]
db Service:
  apiVersion: v1
  spec:
    selector: {app.kubernetes.io/component: db}
    ports: [{name: sql, port: 5432, targetPort: sql}]
web PersistentVolumeClaim:
  apiVersion: v1
  metadata: {annotations: {helm.sh/resource-policy: keep}}
  spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}
web PodDisruptionBudget:
  apiVersion: policy/v1
  spec:
    maxUnavailable: 1
    unhealthyPodEvictionPolicy: AlwaysAllow
    selector: {matchLabels: {app.kubernetes.io/component: web}}
web Deployment:
  apiVersion: apps/v1
  spec:
    replicas: 2
    selector: {matchLabels: {app.kubernetes.io/component: web}}
    template:
      metadata: {annotations: {checksum/config: SUM}}
      spec: &pod
        serviceAccountName: web
        topologySpreadConstraints:
          - maxSkew: 1
            topologyKey: kubernetes.io/hostname
            whenUnsatisfiable: ScheduleAnyway
            labelSelector: {matchLabels: {app.kubernetes.io/component: web}}
        automountServiceAccountToken: false
        enableServiceLinks: false
        securityContext: &security
          runAsNonRoot: true
          runAsUser: 1000
          fsGroup: 1000
          fsGroupChangePolicy: OnRootMismatch
          seccompProfile: {type: RuntimeDefault}
        initContainers:
          - name: init
            image: web:1.0
            imagePullPolicy: IfNotPresent
            resources: &resources {requests: {cpu: 10m, memory: 64Mi}, limits: {memory: 1Gi}}
            securityContext: &container
              allowPrivilegeEscalation: false
              readOnlyRootFilesystem: true
              capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
            volumeMounts: [{name: tmp, mountPath: /tmp}]
        containers:
          - name: web
            image: registry.example/web:1.0
            imagePullPolicy: IfNotPresent
            args: [--log=info]
            envFrom: [{configMapRef: {name: web}}]
            env:
              - {name: TOKEN_FILE, value: /run/token}
              - {name: SITE, value: "http://web.example/"}
              - name: DB_PASSWORD
                valueFrom: {secretKeyRef: {name: made-by-hand, key: password}}
            ports: [{name: http, containerPort: 8080}]
            readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 5}
            livenessProbe: {httpGet: {path: /, port: http}}
            resources: *resources
            securityContext: *container
            volumeMounts: [{name: data, mountPath: /data}, {name: tmp, mountPath: /tmp}]
        volumes:
          - {name: data, persistentVolumeClaim: {claimName: web}}
          - {name: tmp, emptyDir: {}}
db StatefulSet:
  apiVersion: apps/v1
  spec:
    replicas: 1
    serviceName: db
    selector: {matchLabels: {app.kubernetes.io/component: db}}
    template:
      spec:
        serviceAccountName: db
        automountServiceAccountToken: false
        enableServiceLinks: false
        securityContext: *security
        containers:
          - name: db
            image: db@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
            ports: [{name: sql, containerPort: 5432}]
            readinessProbe: {tcpSocket: {port: sql}, periodSeconds: 5}
            livenessProbe: {tcpSocket: {port: sql}}
            resources: *resources
            securityContext: *container
            volumeMounts: [{name: data, mountPath: /data}, {name: tmp, mountPath: /tmp}]
        volumes: [{name: tmp, emptyDir: {}}]
    volumeClaimTemplates:
      - metadata: {name: data}
        spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
closed NetworkPolicy:
  apiVersion: networking.k8s.io/v1
  spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
web NetworkPolicy:
  apiVersion: networking.k8s.io/v1
  spec:
    podSelector: {matchLabels: {app.kubernetes.io/component: web}}
    policyTypes: [Egress]
    egress:
      - to: [{podSelector: {matchLabels: {app.kubernetes.io/component: db}}}]
        ports: [{protocol: TCP, port: 5432}]
db NetworkPolicy:
  apiVersion: networking.k8s.io/v1
  spec:
    podSelector: {matchLabels: {app.kubernetes.io/component: db}}
    policyTypes: [Ingress]
    ingress:
      - from: [{podSelector: {matchLabels: {app.kubernetes.io/component: web}}}]
        ports: [{protocol: TCP, port: sql}]
"""


def objects() -> dict[str, Any]:
    """The right release as plain data, by `NAME KIND`."""
    made: dict[str, Any] = {}
    plain = json.loads(json.dumps(yaml.safe_load(RIGHT.replace("SUM", "a" * 64))))
    for key, content in plain.items():
        name, kind = key.split()
        part = {"web": "web", "db": "db"}.get(name, "all")
        labels = {
            "app.kubernetes.io/name": "small",
            "app.kubernetes.io/instance": "one",
            "app.kubernetes.io/component": part,
        }
        metadata = content.setdefault("metadata", {})
        metadata |= {"name": name, "labels": {**labels, "app.kubernetes.io/managed-by": "Helm"}}
        if kind in {"Deployment", "StatefulSet"}:
            content["spec"]["template"].setdefault("metadata", {})["labels"] = labels
        made[key] = {"kind": kind, **content}
    return made


def rendered(made: dict[str, Any]) -> Rendered:
    manifests = tuple(
        Manifest.of(content, f"small/templates/{name}.yaml", namespace="here")
        for name, content in made.items()
    )
    return Rendered(
        Release("one", "here", KUBERNETES[-1], manifests),
        Externals(keys={("here", "made-by-hand"): frozenset({"password"})}),
        KUBERNETES,
    )


_POD = "web Deployment|spec|template|spec"
_WEB = f"{_POD}|containers|0"
_INIT = f"{_POD}|initContainers|0"
_DB = "db StatefulSet|spec|template|spec"


def _fetched(**spec: str) -> dict[str, Any]:
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {"name": "web", "namespace": "here"},
        "spec": spec,
    }


FAULTS: dict[str, list[tuple[str, Any, str]]] = {
    "schema-valid": [
        ("web Service|spec|port", 80, "1.32.0.*port"),
        ("web Deployment|apiVersion", "apps/v1beta1", "no schema for apps/v1beta1"),
    ],
    "names-unique": [("db Service|metadata|name", "web", "Service/web is rendered 2 times")],
    "in-the-release-namespace": [("web Service|metadata|namespace", "there", "namespace there")],
    "no-undeclared-cluster-scope": [("web ConfigMap|kind", "ClusterRole", "cluster-scoped")],
    "labels-consistent": [
        ("web Service|metadata|labels|app.kubernetes.io/name", DELETE, "no label"),
        (
            "web Service|metadata|labels|app.kubernetes.io/instance",
            "two",
            "instance is two, not one",
        ),
        (
            "web Deployment|metadata|labels|app.kubernetes.io/component",
            "db",
            "its pods say app.kubernetes.io/component=web, itself db",
        ),
    ],
    "credentials-name-their-host": [
        (
            f"{_WEB}|env|0",
            {"name": "OPENAI_API_KEY", "value": "hf_x"},
            "web gets OPENAI_API_KEY and no OPENAI_API_BASE_URL",
        )
    ],
    "secrets-are-fetched-again": [
        ("web ExternalSecret", _fetched(refreshInterval="0s"), "fetched once and never again"),
        (
            "web ExternalSecret",
            _fetched(refreshPolicy="CreatedOnce"),
            "not fetched again when the store changes",
        ),
    ],
    "references-resolve": [
        (f"{_WEB}|env|2|valueFrom|secretKeyRef|key", "pass", "no key pass"),
        ("web ConfigMap|data|DB_URL", "postgres://db:5433/web", "no port 5433"),
    ],
    "selectors-match": [
        ("web Service|spec|selector|tier", "front", "selects no pod"),
        (
            "db StatefulSet|spec|template|metadata|labels|app.kubernetes.io/component",
            "web",
            "selects the pods of StatefulSet/db as well",
        ),
        (
            "web Service|spec|selector",
            {"app.kubernetes.io/name": "small"},
            "sends to Deployment/web and StatefulSet/db",
        ),
    ],
    "every-pod-is-reached-by-its-service-ports": [
        (f"{_WEB}|ports|0|name", "web", "no Service has")
    ],
    "nothing-is-made-in-vain": [
        (f"{_POD}|serviceAccountName", "db", "ServiceAccount/web is used"),
        (f"{_POD}|volumes|0", {"name": "data", "emptyDir": {}}, "Claim/web"),
        (f"{_WEB}|envFrom", DELETE, "ConfigMap/web is used by nothing"),
    ],
    "restricted-pod-security": [
        (f"{_POD}|hostNetwork", True, "hostNetwork is set"),
        (f"{_POD}|volumes|1", {"name": "tmp", "hostPath": {}}, "hostPath"),
        (f"{_INIT}|securityContext", DELETE, "init: allowPrivilegeEsc"),
        (f"{_WEB}|securityContext|privileged", True, "is privileged"),
        (f"{_POD}|securityContext|runAsNonRoot", DELETE, "runAsNonRoot"),
        (f"{_POD}|securityContext|runAsUser", 0, "runs as root"),
        (f"{_POD}|securityContext|seccompProfile", DELETE, "seccomp"),
        (f"{_WEB}|securityContext|capabilities|drop", [], "not drop ALL"),
        (f"{_WEB}|securityContext|capabilities|add|0", "SYS_ADMIN", "SYS_"),
        (f"{_WEB}|ports|0|hostPort", 80, "node's port 80"),
    ],
    "read-only-root-has-a-place-to-write": [
        (f"{_WEB}|volumeMounts|1", DELETE, "no volume at /tmp")
    ],
    "volumes-of-the-pod-can-be-written": [
        (f"{_DB}|securityContext|fsGroup", DELETE, "fsGroup"),
        (f"{_POD}|securityContext|fsGroupChangePolicy", DELETE, "every file"),
    ],
    "pods-do-not-name-the-charts-version": [
        (
            "web Deployment|spec|template|metadata|labels|helm.sh/chart",
            "small-1.0",
            "each version of the chart replaces them",
        )
    ],
    "resources-set": [
        (f"{_WEB}|resources", DELETE, "resources.limits.memory"),
        (f"{_INIT}|resources|requests|cpu", DELETE, "init.*requests.cpu"),
        (f"{_WEB}|resources|requests|memory", "2Gi", "more memory than its limit"),
    ],
    "probes-on-long-running-containers": [
        (f"{_WEB}|readinessProbe", DELETE, "no readinessProbe"),
        (f"{_DB}|containers|0|livenessProbe", DELETE, "liveness"),
    ],
    "probes-are-patient": [(f"{_WEB}|livenessProbe|periodSeconds", 5, "killed after 15 s")],
    "variables-have-a-value": [
        (f"{_WEB}|env|1", {"name": "SITE"}, "SITE has no value"),
        ("web ConfigMap|data|ENABLE_X", "truex", "neither true nor false"),
        (f"{_WEB}|env|2|value", "two", "DB_PASSWORD has no value, or two"),
        (
            f"{_WEB}|env|1",
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.names"}}},
            "no field metadata.names",
        ),
    ],
    "directories-are-in-volumes": [
        (
            f"{_WEB}|env|1",
            {"name": "DATA_DIR", "value": "/datax"},
            "DATA_DIR is /datax, where no volume",
        )
    ],
    "ports-are-what-variables-say": [
        (
            f"{_WEB}|env|1",
            {"name": "HTTP_PORT", "value": "80"},
            "HTTP_PORT is 80, the port http is 8080",
        )
    ],
    "secrets-go-where-they-belong": [
        (f"{_WEB}|env|2|name", "PASSPHRASE", "is the secret password")
    ],
    "variables-are-read": [
        (f"{_POD}|volumes|1", {"name": "tmp", "configMap": {"name": "web"}}, "nothing reads SITE")
    ],
    "volumes-are-what-they-can-be": [
        ("web PersistentVolumeClaim|spec|accessModes", [], "has no acc"),
        (
            "web PersistentVolumeClaim|spec|resources",
            {"limits": {"storage": "1Gi"}},
            "asks for no storage",
        ),
        (
            f"{_POD}|volumes|1|emptyDir",
            {"medium": "memory", "sizeLimit": "1Gi"},
            "no medium that there is: memory",
        ),
        (f"{_POD}|volumes|1|emptyDir", {"medium": "Memory"}, "all the memory"),
        (
            f"{_POD}|volumes|1",
            {"name": "tmp", "configMap": {"name": "web"}},
            "not mounted readOnly",
        ),
    ],
    "certificates-are-of-the-hosts": [
        (
            "web ConfigMap",
            {
                "kind": "Ingress",
                "spec": {"rules": [{"host": "a"}], "tls": [{"hosts": ["b"]}]},
                "metadata": {"name": "web"},
            },
            "with a certificate of",
        )
    ],
    "policies-name-their-peers": [
        (
            "db NetworkPolicy|spec|ingress|0|from|0",
            {"namespaceSelector": {"matchLabels": None}},
            "every namespace",
        ),
        ("closed NetworkPolicy|spec|policyTypes", DELETE, "which direct"),
        ("web NetworkPolicy|spec|policyTypes", ["Ingress"], "switch on"),
        ("db NetworkPolicy|spec|ingress|0|from", [], "means everybody"),
        ("db NetworkPolicy|spec|ingress|0|ports", DELETE, "means all"),
        ("db NetworkPolicy|spec|ingress|0|from|0", {}, "empty peer"),
    ],
    "jobs-can-end": [
        (
            "web Deployment",
            {
                "kind": "CronJob",
                "metadata": {"name": "web"},
                "spec": {
                    "concurrencyPolicy": "Never",
                    "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never"}}}},
                },
            },
            "concurrencyPolicy is Never, must be",
        ),
        (
            "web Deployment",
            {
                "kind": "Job",
                "metadata": {"name": "job"},
                "spec": {"template": {"spec": {"restartPolicy": "Always", "containers": []}}},
            },
            "must be OnFailure",
        ),
    ],
    "secret-keys-are-used": [
        (
            "web Secret",
            {"kind": "Secret", "metadata": {"name": "made-by-hand"}, "stringData": {"other": "x"}},
            "nothing reads its key other",
        )
    ],
    "variables-refer-to-earlier-ones": [(f"{_WEB}|env|1|value", "a-$(POD_NAME)", "needs POD_NAME")],
    "probes-ask-in-one-way": [(f"{_WEB}|livenessProbe", {"periodSeconds": 20}, "asks in 0 ways")],
    "services-name-their-target": [
        ("web Service|spec|ports|0|targetPort", 8080, "to a number"),
        ("web Service|spec|type", "ClusterIPs", "no type ClusterIPs"),
    ],
    "protocols-exist": [
        ("web Service|spec|ports|0|protocol", "TCPs", "no protocol TCPs"),
        (f"{_WEB}|ports|0|protocol", "TCPx", "no protocol TCPx"),
        ("web NetworkPolicy|spec|egress|0|ports|0|protocol", "ICMP", "ICMP"),
    ],
    "images-pinned": [
        (f"{_WEB}|image", "web", "web is not pinned"),
        (f"{_INIT}|image", "registry:5000/web:latest", "is not pinned"),
        (f"{_WEB}|image", "web:1.0 ", "is no image"),
        (f"{_WEB}|imagePullPolicy", DELETE, "no imagePullPolicy"),
    ],
    "tokens-only-where-rights-are": [
        (f"{_POD}|automountServiceAccountToken", True, "no role is"),
        ("web ServiceAccount|automountServiceAccountToken", DELETE, "gives its token"),
        (
            "web RoleBinding",
            {"kind": "RoleBinding", "subjects": [{"kind": "ServiceAccount", "name": "web"}]},
            "does not get it",
        ),
    ],
    "no-service-links": [(f"{_POD}|enableServiceLinks", DELETE, "enableServiceLinks")],
    "data-outlives-its-workload": [
        (
            "db StatefulSet|spec|persistentVolumeClaimRetentionPolicy",
            {"whenDeleted": "Delete"},
            "deletes its data",
        ),
        ("web PersistentVolumeClaim|metadata|annotations", DELETE, "deleted with the release"),
    ],
    "one-writer-for-each-volume": [
        (
            "web PersistentVolumeClaim|spec|accessModes|0",
            "ReadWriteOnce",
            "two pods at once could not both mount web",
        )
    ],
    "what-rolls-says-how": [
        ("web Deployment|spec|strategy", {"type": "RollingUpdate"}, "could not become Recreate")
    ],
    "budgets-let-nodes-drain": [
        ("web PodDisruptionBudget", DELETE, "no PodDisruptionBudget"),
        ("web PodDisruptionBudget|spec|maxUnavailable", 0, "lets no pod"),
        ("web PodDisruptionBudget|spec|unhealthyPodEvictionPolicy", DELETE, "that are not ready"),
    ],
    "slow-starts-are-no-failures": [
        (
            f"{_WEB}|startupProbe",
            {"httpGet": {"path": "/", "port": "http"}, "failureThreshold": 60},
            r"has failed after 600 s, and web may take 600 s to start",
        ),
        (
            f"{_WEB}|startupProbe",
            {"tcpSocket": {"port": "http"}, "initialDelaySeconds": 280},
            r"web may take 310 s",
        ),
    ],
    "replicas-are-apart": [
        (
            f"{_POD}|topologySpreadConstraints|0|topologyKey",
            "topology.kubernetes.io/zone",
            "all of its replicas may be on the node that goes",
        ),
        (
            f"{_POD}|topologySpreadConstraints|0|labelSelector|matchLabels",
            {"app.kubernetes.io/component": "db"},
            "all of its replicas may be on the node that goes",
        ),
    ],
    "what-policies-close-they-open": [
        ("web NetworkPolicy", DELETE, "and no egress rule lets it"),
        ("db NetworkPolicy", DELETE, "and no ingress rule lets it"),
        ("web NetworkPolicy|spec|egress|0|ports|0|port", 5433, "5432"),
        (
            "web ConfigMap|data|OTHER_URL",
            "http://web.elsewhere.svc:80/",
            "calls web.elsewhere.svc .*no egress rule lets it",
        ),
    ],
    "nothing-is-left-empty": [(f"{_POD}|imagePullSecrets", None, "imagePullSecrets has no value")],
    "policies-open-no-more": [
        ("web ConfigMap|data|DB_URL", "sqlite", "without a reason"),
        # the other end is closed: still one lock is open
        (
            "web NetworkPolicy|spec",
            {
                "podSelector": {"matchLabels": {"app.kubernetes.io/component": "web"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 8080}]}],
            },
            r"db in here may call port 8080 of Deployment/web .*\(ingress of NetworkPolicy/web\)",
        ),
    ],
    "no-secret-in-clear-text": [
        ("web ConfigMap|data|ADMIN_PASSWORD", "admin", "ADMIN_PASSWORD"),
        (
            "web ConfigMap|data|settings.yaml",
            "title: Web\npassword: hunter2\n",
            "password in settings.yaml",
        ),
        (f"{_WEB}|env|0", {"name": "API_TOKEN", "value": "abc"}, "the variable API_TOKEN"),
        (f"{_WEB}|args|0", "--db.password=abc", "the argument --db.password"),
        (f"{_WEB}|env|1|value", "http://a:hunter2@x/", "password in a URL"),
        (f"{_WEB}|env|1|value", "AKIAIOSFODNN7EXAMPLE", "a key or a hash"),
        (f"{_WEB}|env|1|value", "x wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY", "a random string"),
    ],
    "configuration-parses": [
        ("web ConfigMap|data|settings.yaml", "a: [1\n", "does not parse"),
        ("web ConfigMap|data|settings.yaml", "a: 1\nb: 1\na: 2\n", "a is given"),
        ("web ConfigMap|data|board.json", '{"a": 1,}', "board.json does not"),
    ],
    "variables-are-given-once": [(f"{_WEB}|env|0|name", "SITE", "variable SITE is given 2 times")],
    "a-changed-configuration-rolls-its-pods": [
        (
            "web Deployment|spec|template|metadata|annotations",
            DELETE,
            "a change of web does not roll",
        )
    ],
}


def test_the_right_release_breaks_nothing() -> None:
    assert list(problems(rendered(objects()))) == []


@pytest.mark.parametrize(
    ("check", "path", "value", "message"),
    [
        pytest.param(check, *fault, id=f"{check}-{number}")
        for check, faults in FAULTS.items()
        for number, fault in enumerate(faults)
    ],
)
def test_a_fault_is_found(check: str, path: str, value: Any, message: str) -> None:
    made = objects()
    edit(made, path, value)
    found = list(INVARIANTS[check].find(rendered(made)))
    assert any(re.search(message, text) for text in found), found


def test_every_invariant_has_a_fault() -> None:
    assert FAULTS.keys() == set(INVARIANTS.names)


def test_the_deployment_breaks_no_invariant() -> None:
    deployment = Deployment.load(CHECKOUT)
    lgtm = ExternalObjects.load(CHECKOUT.charts / "lgtm")
    stack = ExternalObjects.load(CHECKOUT.charts / "open-webui-stack")
    assert broken(lgtm.around(deployment.lgtm(), deployment.lgtm_values())) is None
    for tenant in deployment.registry:
        release = deployment.tenant(tenant.name)
        assert broken(stack.around(release, deployment.tenant_values(tenant))) is None
