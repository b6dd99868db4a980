"""charts/open-webui-stack: how its pods run, who comes in, and what they are told of telemetry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.charts.openwebui import environment, otel, render

from stackproof.checks.application import APPLICATION
from stackproof.checks.network import Peer, Policies, solver, uncertified
from stackproof.helm.manifests import COMPONENT, Manifest, Release
from stackproof.helm.references import Cluster, PodTemplate
from stackproof.helm.references import problems as broken_references
from stackproof.helm.renderer import HelmError
from stackproof.repo.checkout import Checkout

REPLICAS: dict[str, Any] = {
    "openWebui": {
        "replicaCount": 2,
        "persistence": {"accessMode": "ReadWriteMany"},
        "config": {"redisUrl": "redis://redis.cache.svc:6379/0"},
    }
}
OPTIONAL: dict[str, Any] = {
    "gateway": {"enabled": True, "image": {"tag": "1.0.0"}},
    "crawl4ai": {"enabled": True},
    "reranker": {"enabled": True, "image": {"tag": "1.0.0"}},
}


def pod(release: Release, kind: str, name: str) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = release.get(kind, name)["spec"]["template"]["spec"]
    return spec


# --- the application ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("persistence", "strategy"),
    [
        ({"accessMode": "ReadWriteOnce"}, "Recreate"),
        ({"accessMode": "ReadWriteOncePod"}, "Recreate"),
        ({"accessMode": "ReadWriteMany"}, "RollingUpdate"),
        ({"enabled": False}, "RollingUpdate"),
    ],
)
def test_a_volume_of_one_pod_is_let_go_first(
    checkout: Checkout, persistence: Mapping[str, Any], strategy: str
) -> None:
    release = render(checkout, {"openWebui": {"persistence": persistence}})
    found = release.get("Deployment", "open-webui")["spec"]["strategy"]
    assert found["type"] == strategy
    # Without the null, what an earlier RollingUpdate left would stay, and Recreate be refused.
    assert (found["rollingUpdate"] is None) == (strategy == "Recreate")


def test_an_existing_claim_is_used(checkout: Checkout) -> None:
    mine = {"openWebui": {"persistence": {"existingClaim": "mine"}}}
    release = render(checkout, mine)
    assert release.of_kind("PersistentVolumeClaim") == ()
    volumes = pod(release, "Deployment", "open-webui")["volumes"]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "mine"}} in volumes


def test_redis_is_the_one_of_the_values_or_of_a_secret(checkout: Checkout) -> None:
    assert environment(render(checkout, REPLICAS))["REDIS_URL"].value == (
        "redis://redis.cache.svc:6379/0"
    )
    secret = {
        "openWebui": {"config": {"redisUrl": ""}, "extraSecretEnv": {"REDIS_URL": "redis-url"}}
    }
    release = render(checkout, REPLICAS, secret)
    env = environment(release)
    assert env["REDIS_URL"].key is not None
    assert env["WEBSOCKET_MANAGER"].value == "redis"


def test_a_change_makes_another_job(checkout: Checkout) -> None:
    """A Job cannot be changed: one of the same name with another pod stops the upgrade."""
    one = render(checkout, REPLICAS)
    same = render(checkout, REPLICAS, {"searxng": {"replicaCount": 2}})
    other = render(checkout, REPLICAS, {"openWebui": {"image": {"tag": "v0.12.4"}}})
    names = [release.of_kind("Job")[0].name for release in (one, same, other)]
    assert names[0] == names[1] != names[2]


def test_the_job_migrates_a_database_elsewhere(checkout: Checkout) -> None:
    """The replicas wait for it: what only they may reach is never migrated."""
    database = {
        "to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}],
        "ports": [{"protocol": "TCP", "port": 5432}],
    }
    elsewhere = {
        "openWebui": {"extraSecretEnv": {"DATABASE_URL": "database-url"}},
        "postgres": {"enabled": False},
        "networkPolicy": {"extraEgress": [database]},
    }
    release = render(checkout, REPLICAS, elsewhere)
    policies = Policies(Cluster([release]))
    (job,) = release.of_kind("Job")
    for workload in (job, release.get("Deployment", "open-webui")):
        assert policies.let_out(PodTemplate.of(workload), Peer(address="10.1.2.3"), 5432)
    assert not policies.let_out(PodTemplate.of(job), Peer(address="10.1.2.4"), 5432)


ROUTE: dict[str, Any] = {
    "enabled": True,
    "parentRefs": [{"name": "public", "namespace": "gateways"}],
    "allowFrom": [{"namespace": "gateways", "pods": {"app": "proxy"}}, {"cidr": "35.191.0.0/16"}],
}


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, None),
        ({"ingress": {"enabled": True, "host": "a.example"}}, "http://a.example"),
        ({"httpRoute": ROUTE | {"host": "b.example"}}, "https://b.example"),
        ({"httpRoute": ROUTE | {"host": "b.example", "https": False}}, "http://b.example"),
        ({"httpRoute": ROUTE, "ingress": {"host": "a.example"}}, "https://a.example"),
        ({"ingress": {"enabled": True, "host": "a.example", "tlsSecret": "t"}}, "https://a.example"),
        ({"openWebui": {"config": {"url": "https://b.example"}},
          "ingress": {"enabled": True, "host": "a.example"}}, "https://b.example"),
    ],
)  # fmt: skip
def test_it_knows_its_address(checkout: Checkout, values: Mapping[str, Any], url: str) -> None:
    env = environment(render(checkout, values))
    told = {name: env[name].value for name in ("WEBUI_URL", "CORS_ALLOW_ORIGIN") if name in env}
    assert told.get("WEBUI_URL") == url
    assert str(told.get("CORS_ALLOW_ORIGIN")).split(";")[0] == str(url)


def test_every_way_in_is_an_origin(checkout: Checkout) -> None:
    """As browsers spell it: from a page of any other the application takes no WebSocket."""
    both = {
        "ingress": {"enabled": True, "host": "old.example"},
        "httpRoute": ROUTE | {"host": "new.example"},
    }
    env = environment(render(checkout, both))
    assert env["WEBUI_URL"].value == "https://new.example"
    assert env["CORS_ALLOW_ORIGIN"].value == "https://new.example;http://old.example"
    for url in ("https://Chat.Example:443/base", "https://chat.example"):
        typed = environment(render(checkout, both, {"openWebui": {"config": {"url": url}}}))
        origins = "https://chat.example;https://new.example;http://old.example"
        assert typed["WEBUI_URL"].value == url
        assert typed["CORS_ALLOW_ORIGIN"].value == origins


def test_the_first_administrator(checkout: Checkout) -> None:
    release = render(checkout, {"openWebui": {"admin": {"email": "a@example.org", "name": "A"}}})
    env = environment(release)
    assert env["WEBUI_ADMIN_EMAIL"].value == "a@example.org"
    assert env["WEBUI_ADMIN_NAME"].value == "A"
    assert env["WEBUI_ADMIN_PASSWORD"].key is not None
    nobody = render(checkout, {"openWebui": {"admin": {"email": ""}}})
    assert not any(name.startswith("WEBUI_ADMIN") for name in environment(nobody))
    ingress = {"enabled": True, "host": "a.example"}
    with pytest.raises(HelmError, match="admin/email"):
        render(checkout, {"openWebui": {"admin": {"email": ""}}, "ingress": ingress})


def test_what_all_pods_get(checkout: Checkout) -> None:
    release = render(
        checkout,
        OPTIONAL,
        {
            "global": {"imagePullSecrets": ["registry"]},
            "nodeSelector": {"pool": "tenants"},
            "tolerations": [{"key": "tenants", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
        },
    )
    workloads = release.workloads()
    assert len(workloads) == 8
    for workload in workloads:
        spec = workload["spec"]["template"]["spec"]
        assert spec["imagePullSecrets"] == [{"name": "registry"}]
        assert spec["nodeSelector"] == {"pool": "tenants"}
        assert spec["tolerations"] == [{"key": "tenants", "operator": "Exists"}]
        assert spec["affinity"] == {"podAntiAffinity": {}}
        assert spec["enableServiceLinks"] is False


# --- who can talk to whom ----------------------------------------------------------------------


def outside(release: Release, component: str) -> list[Mapping[str, Any]]:
    """Return the peers outside its namespace that policies let in to a component's ports."""
    cluster = Cluster([release])
    (pod,) = (pod for pod in cluster.pods if pod.labels[COMPONENT] == component)
    ports = sorted(set(pod.ports.values()))
    return [peer for port in ports for peer in Policies(cluster).outsiders(pod, port)]


def test_each_way_in_that_is_on_lets_its_own_in(checkout: Checkout) -> None:
    ingress = {"ingress": {"enabled": True, "host": "a.example"}}
    route = {"httpRoute": ROUTE | {"host": "a.example"}}

    def namespace(name: str) -> dict[str, Any]:
        return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}

    gateways = {**namespace("gateways"), "podSelector": {"matchLabels": {"app": "proxy"}}}
    by_route = [gateways, {"ipBlock": {"cidr": "35.191.0.0/16"}}]
    assert outside(render(checkout, route), "open-webui") == by_route
    both = outside(render(checkout, route, ingress), "open-webui")
    assert sorted(both, key=str) == sorted([*by_route, namespace("ingress-nginx")], key=str)


@pytest.mark.parametrize(
    "asked", ["", "kubernetes.io/tls-acme", "cert-manager.io/issuer", "Certificate"]
)
def test_the_issuer_of_a_certificate_comes_in(checkout: Checkout, asked: str) -> None:
    """Whoever asks for the certificate: an annotation, or a Certificate that others make."""
    annotations = {asked: "true"} if "/" in asked else {}
    way_in = {"enabled": True, "host": "a.b", "tlsSecret": "tls", "annotations": annotations}
    template = checkout.charts / "open-webui-stack" / "templates" / "networkpolicies.yaml"
    without = template.read_text("utf-8").replace(".Values.ingress.tlsSecret }}", "false }}")
    certificate = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": "tls", "namespace": "tenant"},
        "spec": {"secretName": "tls"},
    }
    others = [Manifest.of(certificate, "certificate.yaml")] if asked == "Certificate" else []
    for overlay, shut in (({}, False), ({"templates/networkpolicies.yaml": without}, True)):
        release = render(checkout, {"ingress": way_in}, overlay=overlay)
        cluster = Cluster([replace(release, manifests=(*release.manifests, *others))])
        prover = solver(release.get("Ingress", "open-webui"))
        by = Peer(namespace="ingress-nginx")
        assert Policies(cluster).let_in(prover, by, 8089) != shut
        assert bool(list(uncertified(cluster))) == (shut and bool(asked))


def test_without_a_way_in_nobody_comes_in(checkout: Checkout) -> None:
    release = render(checkout)
    for name in ("open-webui", "postgres", "weaviate", "searxng", "alloy"):
        assert outside(release, name) == []


def test_policies_can_be_left_to_others(checkout: Checkout) -> None:
    release = render(checkout, {"networkPolicy": {"enabled": False}})
    assert release.of_kind("NetworkPolicy") == ()


# --- telemetry -----------------------------------------------------------------------------------


#: No search and no provider elsewhere, so that nothing is open by chance.
ALONE: dict[str, Any] = {
    "openWebui": {
        "config": {"openaiApiBaseUrl": "", "ragOpenaiApiBaseUrl": "http://models.ai.svc"}
    },
    "searxng": {"enabled": False},
}
TO_ADDRESS = ("{{- else if $destination.address }}", "{{- else if $destination.no }}")
TO_NEIGHBOUR = ('{{- else if not (contains "." (first $host)) }}', "{{- else if false }}")
OF_FURTHER = ("range values $values.openWebui.extraEnv | sortAlpha", "range list")
OF_MODEL = ("(not $root.Values.openWebui.config.ragEmbeddingEngine)", "false")


def models(url: str) -> dict[str, Any]:
    return {"openWebui": {"config": {"openaiApiBaseUrl": url}}}


def further(value: str) -> dict[str, Any]:
    return {"openWebui": {"extraEnv": {"FURTHER": value}}}


@pytest.mark.parametrize(
    ("values", "peer", "port", "fault"),
    [
        (models("http://10.1.2.3:8000/v1"), Peer(address="10.1.2.3"), 8000, TO_ADDRESS),
        (models("http://vllm:8000/v1"), Peer(namespace="tenant"), 8000, TO_NEIGHBOUR),
        (further("http://tika.docs.svc:9998"), Peer(namespace="docs"), 9998, OF_FURTHER),
        (further("https://login.example.org/a?b=c"), Peer(address="8.8.8.8"), 443, OF_FURTHER),
        (further("http://one.a.svc;http://10.1.2.3"), Peer(address="10.1.2.3"), 80, OF_FURTHER),
        (
            {"openWebui": {"config": {"ragEmbeddingEngine": ""}}},
            Peer(address="8.8.8.8"),
            443,
            OF_MODEL,
        ),
    ],
)
def test_what_the_application_is_told_to_call_is_let_out(
    checkout: Checkout, values: Mapping[str, Any], peer: Peer, port: int, fault: tuple[str, str]
) -> None:
    def is_open(release: Release) -> bool:
        pod = PodTemplate.of(release.get("Deployment", "open-webui"))
        return Policies(Cluster([release])).let_out(pod, peer, port)

    check = APPLICATION["providers-outside-can-be-reached"]
    assert not is_open(render(checkout, ALONE))
    release = render(checkout, ALONE, values)
    assert is_open(release)
    assert list(check.find(release)) == []

    template = checkout.charts / "open-webui-stack" / "templates" / "networkpolicies.yaml"
    text = template.read_text(encoding="utf-8")
    assert fault[0] in text
    overlay = {"templates/networkpolicies.yaml": text.replace(*fault)}
    shut = render(checkout, ALONE, values, overlay=overlay)
    assert not is_open(shut)
    said = "\n".join(check.find(shut))
    assert re.search(f"no policy lets (it|the application) reach port {port}", said)


@pytest.mark.parametrize("host", ["vllm", "vllm.tenant.svc"])
def test_a_neighbour_is_no_pod_of_the_release(checkout: Checkout, host: str) -> None:
    """Whoever else is in its namespace may have any port."""
    release = render(checkout, ALONE, models(f"http://{host}:8000/v1"))
    assert not [p for p in broken_references(Cluster([release])) if p.check == "policy"]


@pytest.mark.parametrize(
    "value", ["http://user:pass@a.b", "http://[::1]/", "http://a:99999", "a http://b", "http://"]
)
def test_what_is_no_plain_url_opens_nothing(checkout: Checkout, value: str) -> None:
    policies = [
        render(checkout, *values).of_kind("NetworkPolicy")
        for values in ((ALONE,), (ALONE, further(value)))
    ]
    assert policies[0] == policies[1]


@pytest.mark.parametrize("ratio", [0, 0.25, 1])
def test_a_ratio_sampler_gets_its_ratio(checkout: Checkout, ratio: float) -> None:
    found = environment(render(checkout, otel(sampler="traceidratio", samplerArg=ratio)))
    assert found["OTEL_TRACES_SAMPLER"].value == "traceidratio"
    assert found["OTEL_TRACES_SAMPLER_ARG"].value == str(ratio)


def test_every_value_reaches_the_application(checkout: Checkout) -> None:
    said = otel(
        traces=False,
        metrics=False,
        logs=False,
        endpoint="https://otlp.example.org:4317",
        insecure=False,
        serviceName="chat",
        sampler="always_off",
        metricsExportIntervalMillis=60000,
        excludedUrls="none",
        resourceAttributes="team=platform",
    )
    found = {name: one.value for name, one in environment(render(checkout, said)).items()}
    assert str(found.pop("OTEL_RESOURCE_ATTRIBUTES")).endswith(",tenant.id=soev,team=platform")
    assert (
        found.items()
        >= {
            "ENABLE_OTEL_TRACES": "false",
            "ENABLE_OTEL_METRICS": "false",
            "ENABLE_OTEL_LOGS": "false",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://otlp.example.org:4317",
            "OTEL_EXPORTER_OTLP_INSECURE": "false",
            "OTEL_SERVICE_NAME": "chat",
            "OTEL_TRACES_SAMPLER": "always_off",
            "OTEL_METRICS_EXPORT_INTERVAL_MILLIS": "60000",
            "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS": "none",
        }.items()
    )


def test_off_is_one_variable_and_no_alloy(checkout: Checkout) -> None:
    release = render(checkout, otel(enabled=False))
    told = {name: one.value for name, one in environment(release).items() if "OTEL" in name}
    assert told == {"ENABLE_OTEL": "false"}
    assert not any(m.labels.get("app.kubernetes.io/component") == "alloy" for m in release)


@pytest.mark.parametrize("gateway", [True, False])
def test_no_configuration_of_alloy_names_a_tenant(checkout: Checkout, gateway: bool) -> None:
    settings = {"gateway": {"enabled": gateway}, "podLogs": {"enabled": True}}
    release = render(checkout, {"alloy": settings})
    files = release.get("ConfigMap", "open-webui-alloy")["data"]
    assert set(files) == {"config.alloy", "pod-logs.alloy"}
    for text in files.values():
        assert "soev" not in text
        # With metadata, a client's X-Scope-OrgID would get beyond the receiver.
        assert "include_metadata" not in text


def test_pod_logs_need_a_role_and_one_pod(checkout: Checkout) -> None:
    release = render(checkout, {"alloy": {"podLogs": {"enabled": True}}})
    deployment = release.get("Deployment", "open-webui-alloy")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    rules = release.get("Role", "open-webui-alloy")["rules"]
    assert [(rule["resources"], rule["verbs"]) for rule in rules] == [
        (["pods"], ["get", "list", "watch"]),
        (["pods/log"], ["get"]),
    ]
    (subject,) = release.get("RoleBinding", "open-webui-alloy")["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "open-webui-alloy", "namespace": "tenant"}


def test_a_change_of_alloys_configuration_rolls_alloy_alone(checkout: Checkout) -> None:
    one = render(checkout)
    other = render(checkout, {"alloy": {"gateway": {"enabled": False}}})

    def annotations(release: Release) -> dict[str, object]:
        return {
            workload.name: workload["spec"]["template"]["metadata"].get("annotations")
            for workload in release.workloads()
        }

    before, after = annotations(one), annotations(other)
    assert {name for name in before if before[name] != after[name]} == {"open-webui-alloy"}
