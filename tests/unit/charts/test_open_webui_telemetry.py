"""charts/open-webui-stack: what the application is told about telemetry, and the tenant's Alloy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from stackproof.helm import renderer
from stackproof.helm.manifests import Manifest, Release, containers
from stackproof.repo.checkout import Checkout


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


def test_off_is_one_variable_and_no_alloy(checkout: Checkout) -> None:
    release = render(checkout, enabled=False)
    assert telemetry(release) == {"ENABLE_OTEL": "false"}
    assert alloy_objects(release) == []


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
