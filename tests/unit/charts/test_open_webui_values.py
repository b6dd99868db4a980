"""charts/open-webui-stack: which values it refuses, and the names that it makes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.charts.openwebui import environment, otel, render

from stackproof.helm.renderer import HelmError
from stackproof.repo.checkout import Checkout
from stackproof.values import combinations

CONFIG = "openWebui.config"
OTEL = f"{CONFIG}.telemetry.otel"


def nested(path: str, value: object) -> dict[str, Any]:
    """Return {a: {b: value}} for a.b; a key with a dot in it has to be in the value."""
    return combinations.nested(tuple(path.split(".")), value)


OFF = {"enabled": False}


def replicas(**settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of two pods that share what the chart gives them."""
    shared = {
        "replicaCount": 2,
        "persistence": {"accessMode": "ReadWriteMany"},
        "config": {"redisUrl": "redis://redis:6379"},
    }
    return {"openWebui": {**shared, **settings}}


EVERYTHING: dict[str, Any] = {
    **replicas(),
    "alloy": {"podLogs": {"enabled": True}},
    "crawl4ai": {"enabled": True},
    "reranker": {"enabled": True, "image": {"tag": "1"}},
    "gateway": {"enabled": True, "image": {"tag": "1"}},
    "ingress": {"enabled": True, "host": "chat.example.org"},
}


def refused(path: str, value: object) -> tuple[dict[str, Any], str]:
    """Return values with a value that is refused by itself, and where."""
    return nested(path, value), path


@pytest.mark.parametrize(
    ("values", "path"),
    [
        # A key that nothing reads, or that stands in the wrong place.
        ({"telemetry": {"otel": {}}}, ""),
        ({"openWebui": {"telemetry": {"otel": {}}}}, "openWebui"),
        (otel(tenantID="soev"), OTEL),
        ({"resources": {}}, ""),
        ({"alloy": {"service": {"type": "ClusterIP"}}}, "alloy"),
        ({"postgres": {"resources": {"requests": {"gpu": 1}}}}, "postgres.resources.requests"),
        # A default that is taken away.
        ({"openWebui": {"replicaCount": None}}, "openWebui"),
        (otel(protocol=None), OTEL),
        # Tenants: the same names as in the registry (test_names.py).
        (otel(tenantId=""), f"{OTEL}.tenantId"),
        (otel(tenantId="Soev"), f"{OTEL}.tenantId"),
        (otel(tenantId="admin"), f"{OTEL}.tenantId"),
        # Secrets that would never be fetched again (external-secrets#4167).
        refused("externalSecrets.refreshInterval", "0s"),
        refused("externalSecrets.refreshInterval", "0h00m"),
        refused("externalSecrets.refreshInterval", "000s"),
        # What the application would take without a word, and send nothing.
        (otel(protocol="http/protobuf"), f"{OTEL}.protocol"),
        (otel(insecure=False), f"{OTEL}.insecure"),
        (otel(insecure=False, endpoint="http://otlp:4317"), f"{OTEL}.insecure"),
        (otel(insecure=True, endpoint="https://otlp:4317"), f"{OTEL}.insecure"),
        (otel(endpoint="otlp:4317"), f"{OTEL}.endpoint"),
        (otel(endpoint="http://otlp:4318/", protocol="http"), f"{OTEL}.endpoint"),
        # URLs that no client could open, or that no NetworkPolicy could be made of.
        (otel(endpoint="http://otlp:70000"), f"{OTEL}.endpoint"),
        refused(f"{CONFIG}.openaiApiBaseUrl", "http://%"),
        refused(f"{CONFIG}.openaiApiBaseUrl", "http://a/%2"),
        refused(f"{CONFIG}.openaiApiBaseUrl", "http://[::1]"),
        refused(f"{CONFIG}.ragOpenaiApiBaseUrl", "http://a:b"),
        refused(f"{CONFIG}.redisUrl", "redis://:6379"),
        (otel(sampler="bogus"), f"{OTEL}.sampler"),
        (otel(sampler="traceidratio"), f"{OTEL}.samplerArg"),
        (otel(sampler="parentbased_traceidratio"), f"{OTEL}.samplerArg"),
        (otel(sampler="traceidratio", samplerArg=1.5), f"{OTEL}.samplerArg"),
        (otel(sampler="always_on", samplerArg=0.5), f"{OTEL}.samplerArg"),
        (otel(resourceAttributes="team"), f"{OTEL}.resourceAttributes"),
        (otel(resourceAttributes="a=b,tenant.id=x"), f"{OTEL}.resourceAttributes"),
        (otel(resourceAttributes="service.name=x"), f"{OTEL}.resourceAttributes"),
        (otel(metricsExportIntervalMillis=10), f"{OTEL}.metricsExportIntervalMillis"),
        refused("openWebui.extraEnv", {"lower": "x"}),
        refused("openWebui.extraEnv.NUMBER", 1),
        refused("openWebui.extraSecretEnv.KEY", "a_b"),
        refused("secrets.extra", {"UPPER": "x"}),
        # Images that change under their tag.
        refused("openWebui.image.tag", "main"),
        refused("searxng.image.tag", "latest"),
        refused("alloy.image.tag", ""),
        (nested("gateway.enabled", True), "gateway.image.tag"),
        (nested("reranker.enabled", True), "reranker.image.tag"),
        # Rules between values.
        (nested("openWebui.replicaCount", 2), "openWebui.persistence.accessMode"),
        (nested("openWebui.replicaCount", 2), "openWebui.config.redisUrl"),
        # Several pods with one file as their database, or each with uploads of its own.
        ({**replicas(), "postgres": OFF}, "postgres.enabled"),
        ({**replicas(), "weaviate": OFF}, "weaviate.enabled"),
        (replicas(persistence={"enabled": False}), "openWebui.persistence.enabled"),
        ({"alloy": {"replicaCount": 2, "podLogs": {"enabled": True}}}, "alloy.replicaCount"),
        (nested("ingress.enabled", True), "ingress.host"),
        (nested("ingress", {"enabled": True, "host": "a.b", "allowFrom": []}), "ingress.allowFrom"),
        # GKE's own controller does not read the field; no Ingress is made that has both.
        refused("ingress.className", "gce"),
        refused("ingress.className", "gce-internal"),
        (
            nested("ingress.annotations", {"kubernetes.io/ingress.class": "gce"}),
            "ingress.annotations",
        ),
        (nested("httpRoute.enabled", True), "httpRoute.parentRefs"),
        (nested("httpRoute.enabled", True), "httpRoute.allowFrom"),
        (nested("httpRoute.enabled", True), "ingress.host"),
        (nested("httpRoute.allowFrom", [{"cidr": "0.0.0.0/0"}]), "httpRoute.allowFrom.0.cidr"),
        (nested("httpRoute.allowFrom", [{"pods": {"a": "b"}}]), "httpRoute.allowFrom.0"),
        refused("networkPolicy.dns.pods", []),
        (nested("networkPolicy.dns.cidrs", ["0.0.0.0/0"]), "networkPolicy.dns.cidrs.0"),
        (
            nested("networkPolicy.kubernetesApiCidrs", ["0.0.0.0/0"]),
            "networkPolicy.kubernetesApiCidrs.0",
        ),
        (nested("externalSecrets.enabled", True), "externalSecrets.gcpProject"),
        refused("openWebui.securityContext.runAsUser", 0),
        # A restore would first drop what it replaces; such an owner is none to PostgreSQL (initdb).
        refused("postgres.database", "restored"),
        refused("postgres.database", "template1"),
        refused("postgres.user", "public"),
        refused("postgres.user", "none"),
        refused("postgres.user", "pg_owner"),
    ],
)
def test_refused_with_its_path(checkout: Checkout, values: Mapping[str, Any], path: str) -> None:
    with pytest.raises(HelmError) as caught:
        render(checkout, values)
    assert caught.value.kind == "schema"
    assert path in {one.path for one in caught.value.refused}


@pytest.mark.parametrize(
    "values",
    [
        otel(protocol="http", insecure=False),
        otel(endpoint="https://otlp:4317", insecure=False),
        otel(endpoint="https://otlp/base", protocol="http"),
        nested("openWebui.config.openaiApiBaseUrl", "https://models.example:65535/a%20b/v1"),
        otel(sampler="traceidratio", samplerArg=0),
        otel(tenantId="a"),
        otel(tenantId="a" * 34),
        replicas(persistence={"enabled": False}, extraEnv={"STORAGE_PROVIDER": "s3"}),
        {**replicas(extraSecretEnv={"DATABASE_URL": "database-url"}), "postgres": OFF},
        {**replicas(extraEnv={"VECTOR_DB": "pgvector"}), "weaviate": OFF},
        nested("postgres", {"database": "pg_chats", "user": "postgres"}),
        nested("postgres.image.tag", "16.16-alpine@sha256:" + "0" * 64),
    ],
)  # fmt: skip
def test_accepted(checkout: Checkout, values: Mapping[str, Any]) -> None:
    assert render(checkout, values).manifests


def test_two_sources_of_secrets_are_one_too_many(checkout: Checkout) -> None:
    external = {"externalSecrets": {"enabled": True, "gcpProject": "project"}}
    with pytest.raises(HelmError) as caught:
        render(checkout, external)
    assert "secrets.existingSecret" in {one.path for one in caught.value.refused}


@pytest.mark.parametrize(
    ("further", "name"),
    [
        ({"extraEnv": {"OTEL_SERVICE_NAME": "x"}}, "OTEL_SERVICE_NAME"),
        ({"extraEnv": {"DATABASE_URL": "x"}}, "DATABASE_URL"),
        ({"extraSecretEnv": {"WEBUI_SECRET_KEY": "other"}}, "WEBUI_SECRET_KEY"),
        ({"extraSecretEnv": {"A": "a"}, "extraEnv": {"A": "a"}}, "A"),
    ],
)
def test_a_variable_is_set_once(checkout: Checkout, further: Mapping[str, Any], name: str) -> None:
    with pytest.raises(HelmError, match=f": {name} is set already"):
        render(checkout, {"openWebui": further})


@pytest.mark.parametrize("where", ["extraEnv", "extraSecretEnv"])
def test_who_migrates_is_set_once(checkout: Checkout, where: str) -> None:
    """By the chart, where a Job migrates for several pods; else it is left to the application."""
    further = {"openWebui": {where: {"ENABLE_DB_MIGRATIONS": "true"}}}
    assert "ENABLE_DB_MIGRATIONS" in environment(render(checkout, further))
    with pytest.raises(HelmError, match=": ENABLE_DB_MIGRATIONS is set already"):
        render(checkout, replicas(), further)


def test_what_the_chart_leaves_can_be_set(checkout: Checkout) -> None:
    further = {
        "openWebui": {
            "extraEnv": {"ENABLE_CHANNELS": "false"},
            "extraSecretEnv": {"DATABASE_URL": "database-url"},
        },
        "postgres": {"enabled": False},
    }
    env = environment(render(checkout, further))
    assert env["ENABLE_CHANNELS"].value == "false"
    assert env["DATABASE_URL"].key is not None
    assert env["DATABASE_URL"].key.key == "database-url"


@pytest.mark.parametrize(
    ("release", "prefix"),
    [
        ("open-webui", "open-webui"),
        ("open-webui-stack", "open-webui-stack"),
        ("my-open-webui-stack", "my-open-webui-stack"),
        ("chat", "chat-open-webui-stack"),
        ("enterprise-a", "enterprise-a-open-webui-stack"),
        ("a.b", "a-b-open-webui-stack"),
    ],
)
def test_names_start_with_the_release(checkout: Checkout, release: str, prefix: str) -> None:
    made = render(checkout, release=release)
    made.get("Deployment", prefix)
    made.get("Service", prefix)
    made.get("Service", f"{prefix}-alloy")
    made.get("StatefulSet", f"{prefix}-postgres")


def test_the_name_can_be_chosen(checkout: Checkout) -> None:
    made = render(checkout, {"fullnameOverride": "chat"}, release="x")
    assert all(m.name == "chat" or m.name.startswith("chat-") for m in made)


@pytest.mark.parametrize("release", ["9", "1abc", "2.x"])
def test_a_service_is_called_nothing_that_begins_with_a_digit(
    checkout: Checkout, release: str
) -> None:
    """Helm takes such a release; Kubernetes refuses its Services, and takes the rest (RFC 1035)."""
    with pytest.raises(HelmError, match=f"release {re.escape(release)}: a Service's name beg"):
        render(checkout, release=release)
    render(checkout, {"fullnameOverride": "chat"}, release=release)


def test_no_name_of_the_application_is_another_objects(checkout: Checkout) -> None:
    """Helm would apply both, and the later one would stay."""
    others = {m.name for m in render(checkout, EVERYTHING, release="x")} - {"x-open-webui-stack"}
    for taken in sorted(others):
        with contextlib.suppress(HelmError):
            made = render(checkout, _called(taken), release="x")
            assert len({(m.kind, m.name) for m in made}) == len([*made]), taken
    with pytest.raises(
        HelmError, match="x-open-webui-stack-postgres is what another object of this"
    ):
        render(checkout, _called("x-open-webui-stack-postgres"), release="x")
    render(checkout, _called("postgres"), release="x")


def _called(name: str) -> dict[str, Any]:
    return {**EVERYTHING, "openWebui": {**EVERYTHING["openWebui"], "nameOverride": name}}


@pytest.mark.parametrize("length", [26, 27, 40, 46, 53])
def test_long_release_names_fit(checkout: Checkout, length: int) -> None:
    """53 is the longest that Helm takes; with the chart's name, 26 is the longest uncut one."""
    long = render(checkout, EVERYTHING, release="r" * length)
    other = render(checkout, EVERYTHING, release="r" * (length - 1) + "s")
    assert max(len(m.name) for m in long) <= 63
    # The pods' label controller-revision-hash is the name and 11 characters.
    assert max(len(m.name) for m in long.of_kind("StatefulSet")) <= 52
    # Cut alike, and still two different names.
    assert {m.ref for m in long}.isdisjoint({m.ref for m in other})


def test_the_tenant_is_written_once(checkout: Checkout) -> None:
    made = render(checkout, otel(tenantId="only-here"))
    assert {m.labels["tenant.id"] for m in made} == {"only-here"}
    other = render(checkout, otel(tenantId="somebody"))
    assert {m.ref for m in made} == {m.ref for m in other}
    for one, two in zip(made, other, strict=True):
        assert str(one.content).replace("only-here", "somebody") == str(two.content)
