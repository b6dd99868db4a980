"""charts/open-webui-stack: what the application is told about telemetry, and the tenant's Alloy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from stackproof.helm import renderer
from stackproof.helm.manifests import Manifest, Release, containers
from stackproof.repo.checkout import Checkout

#: Every telemetry variable that open-webui 0.12.4 reads (open_webui/env.py), …
APPLICATION_READS = {
    "ENABLE_OTEL",
    "ENABLE_OTEL_TRACES",
    "ENABLE_OTEL_METRICS",
    "ENABLE_OTEL_LOGS",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_METRICS_EXPORTER_OTLP_ENDPOINT",
    "OTEL_LOGS_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_INSECURE",
    "OTEL_SERVICE_NAME",
    "OTEL_METRICS_EXPORT_INTERVAL_MILLIS",
    "OTEL_OTLP_SPAN_EXPORTER",
}
#: … and those that only the OpenTelemetry SDK and its instrumentations read.
SDK_READS = {
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS",
    "OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION",
}


def render(
    checkout: Checkout, *, alloy: Mapping[str, Any] | None = None, **otel: object
) -> Release:
    values = {
        "openWebui": {"config": {"telemetry": {"otel": {"tenantId": "soev", **otel}}}},
        "alloy": alloy or {},
        "secrets": {"existingSecret": "tenant-secrets"},
    }
    return renderer.render(
        checkout.charts / "open-webui-stack", [values], release="open-webui", namespace="tenant"
    )


def container(release: Release, name: str = "open-webui") -> Mapping[str, Any]:
    (found,) = containers(release.get("Deployment", name))
    return found


def telemetry(release: Release) -> dict[str, str | None]:
    env = release.env(container(release))
    return {name: variable.value for name, variable in env.items() if "OTEL" in name}


def alloy_objects(release: Release) -> list[Manifest]:
    return [m for m in release if m.labels.get("app.kubernetes.io/component") == "alloy"]


def test_grpc_goes_to_the_releases_own_alloy(checkout: Checkout) -> None:
    found = telemetry(render(checkout))
    assert found == {
        "ENABLE_OTEL": "true",
        "ENABLE_OTEL_TRACES": "true",
        "ENABLE_OTEL_METRICS": "true",
        "ENABLE_OTEL_LOGS": "true",
        "OTEL_OTLP_SPAN_EXPORTER": "grpc",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://open-webui-alloy.tenant.svc:4317",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
        "OTEL_SERVICE_NAME": "open-webui",
        "OTEL_TRACES_SAMPLER": "parentbased_always_on",
        "OTEL_METRICS_EXPORT_INTERVAL_MILLIS": "10000",
        "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS": "/health$,/health/db$,/ready$",
        "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "32",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "32",
        "OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION": "false",
        "OTEL_RESOURCE_ATTRIBUTES": (
            "service.namespace=$(POD_NAMESPACE),service.instance.id=$(POD_NAME),"
            "k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME),tenant.id=soev"
        ),
    }
    assert set(found) <= APPLICATION_READS | SDK_READS


@pytest.mark.parametrize(
    ("endpoint", "base"),
    [
        ("", "http://open-webui-alloy.tenant.svc:4318"),
        ("https://otlp.example.org/in", "https://otlp.example.org/in"),
    ],
)
def test_http_names_the_path_of_each_signal(checkout: Checkout, endpoint: str, base: str) -> None:
    found = telemetry(render(checkout, protocol="http", endpoint=endpoint))
    assert found["OTEL_OTLP_SPAN_EXPORTER"] == "http"
    assert found["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"{base}/v1/traces"
    assert found["OTEL_METRICS_EXPORTER_OTLP_ENDPOINT"] == f"{base}/v1/metrics"
    assert found["OTEL_LOGS_EXPORTER_OTLP_ENDPOINT"] == f"{base}/v1/logs"
    assert set(found) <= APPLICATION_READS | SDK_READS


@pytest.mark.parametrize("ratio", [0, 0.25, 1])
def test_a_ratio_sampler_gets_its_ratio(checkout: Checkout, ratio: float) -> None:
    found = telemetry(render(checkout, sampler="traceidratio", samplerArg=ratio))
    assert found["OTEL_TRACES_SAMPLER"] == "traceidratio"
    assert found["OTEL_TRACES_SAMPLER_ARG"] == str(ratio)


def test_every_value_reaches_the_application(checkout: Checkout) -> None:
    found = telemetry(
        render(
            checkout,
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
    )
    assert found["ENABLE_OTEL_TRACES"] == "false"
    assert found["ENABLE_OTEL_METRICS"] == "false"
    assert found["ENABLE_OTEL_LOGS"] == "false"
    assert found["OTEL_EXPORTER_OTLP_ENDPOINT"] == "https://otlp.example.org:4317"
    assert found["OTEL_EXPORTER_OTLP_INSECURE"] == "false"
    assert found["OTEL_SERVICE_NAME"] == "chat"
    assert found["OTEL_TRACES_SAMPLER"] == "always_off"
    assert found["OTEL_METRICS_EXPORT_INTERVAL_MILLIS"] == "60000"
    assert found["OTEL_PYTHON_FASTAPI_EXCLUDED_URLS"] == "none"
    assert str(found["OTEL_RESOURCE_ATTRIBUTES"]).endswith(",tenant.id=soev,team=platform")


def test_the_attributes_name_the_pod(checkout: Checkout) -> None:
    variables = render(checkout).env(container(render(checkout)))
    assert variables["POD_NAME"].field == "metadata.name"
    assert variables["POD_NAMESPACE"].field == "metadata.namespace"
    # The kubelet replaces $(NAME) only by variables that stand before it.
    order = list(variables)
    assert order.index("POD_NAME") < order.index("OTEL_RESOURCE_ATTRIBUTES")
    assert order.index("POD_NAMESPACE") < order.index("OTEL_RESOURCE_ATTRIBUTES")


def test_off_is_one_variable_and_no_alloy(checkout: Checkout) -> None:
    release = render(checkout, enabled=False)
    assert telemetry(release) == {"ENABLE_OTEL": "false"}
    assert alloy_objects(release) == []


def test_alloy_gets_everything_from_its_environment(checkout: Checkout) -> None:
    release = render(checkout)
    env = release.env(container(release, "open-webui-alloy"))
    assert {name: variable.value for name, variable in env.items()} == {
        "TENANT_ID": "soev",
        "GATEWAY_URL": "http://gateway.observability.svc:8080",
        "GATEWAY_PASSWORD_FILE": "/etc/alloy-secrets/gateway-password",
        "CONFIG_DIR": "/etc/alloy",
        "DATA_DIR": "/var/lib/alloy/data",
        "LISTEN_ADDRESS": "0.0.0.0",  # noqa: S104 — in a pod
        "HTTP_PORT": "12345",
        "OTLP_GRPC_PORT": "4317",
        "OTLP_HTTP_PORT": "4318",
    }


def test_without_a_gateway_alloy_names_the_tenant_itself(checkout: Checkout) -> None:
    release = render(checkout, alloy={"gateway": {"enabled": False}})
    env = release.env(container(release, "open-webui-alloy"))
    assert env["MIMIR_URL"].value == "http://mimir.observability.svc:9009"
    assert env["LOKI_URL"].value == "http://loki.observability.svc:3100"
    assert env["TEMPO_URL"].value == "http://tempo.observability.svc:4318"
    assert {"GATEWAY_URL", "GATEWAY_PASSWORD_FILE"}.isdisjoint(env)
    config = release.get("ConfigMap", "open-webui-alloy")["data"]["config.alloy"]
    assert '"X-Scope-OrgID" = sys.env("TENANT_ID")' in config
    assert "otelcol.auth" not in config


@pytest.mark.parametrize("gateway", [True, False])
def test_no_configuration_of_alloy_names_a_tenant(checkout: Checkout, gateway: bool) -> None:
    settings = {"gateway": {"enabled": gateway}, "podLogs": {"enabled": True}}
    release = render(checkout, alloy=settings)
    files = release.get("ConfigMap", "open-webui-alloy")["data"]
    assert set(files) == {"config.alloy", "pod-logs.alloy"}
    for text in files.values():
        assert "soev" not in text
        # With metadata, a client's X-Scope-OrgID would get beyond the receiver.
        assert "include_metadata" not in text


def test_pod_logs_need_a_role_and_one_pod(checkout: Checkout) -> None:
    release = render(checkout, alloy={"podLogs": {"enabled": True}})
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


def test_without_pod_logs_nothing_reads_the_kubernetes_api(checkout: Checkout) -> None:
    release = render(checkout)
    assert release.of_kind("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding") == ()
    for workload in release.workloads():
        assert workload["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    assert "pod-logs.alloy" not in release.get("ConfigMap", "open-webui-alloy")["data"]


def test_a_change_of_alloys_configuration_rolls_alloy_alone(checkout: Checkout) -> None:
    one = render(checkout)
    other = render(checkout, alloy={"gateway": {"enabled": False}})

    def annotations(release: Release) -> dict[str, object]:
        return {
            workload.name: workload["spec"]["template"]["metadata"].get("annotations")
            for workload in release.workloads()
        }

    before, after = annotations(one), annotations(other)
    assert {name for name in before if before[name] != after[name]} == {"open-webui-alloy"}
