"""The settings hold for the deployment, and each check notices when one of its own does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stackproof.checks import observability, settings
from stackproof.checks.alloy import alloy_settings
from stackproof.checks.application import APPLICATION
from stackproof.checks.deployment import RenderedDeployment
from stackproof.checks.gateway import routes
from stackproof.checks.observability import OBSERVABILITY
from stackproof.checks.pods import at
from stackproof.checks.settings import SETTINGS
from stackproof.flux.deployment import LGTM_RELEASE, TENANT_RELEASE, Deployment
from stackproof.helm import renderer
from stackproof.helm.externals import read_values
from stackproof.helm.manifests import Release
from stackproof.repo.checkout import Checkout

CHECKOUT = Checkout.find()


@dataclass(frozen=True)
class Altered(Deployment):
    """The deployment with one template changed."""

    chart: str = ""
    file: str = ""
    old: str = ""
    new: str = ""

    def _overlay(self, chart: str) -> dict[str, str]:
        if chart != self.chart:
            return {}
        text = (CHECKOUT.charts / chart / self.file).read_text(encoding="utf-8")
        assert self.old in text
        return {self.file: text.replace(self.old, self.new)}

    def lgtm(self, *, fresh: bool = False) -> Release:
        return renderer.render(
            self.checkout.charts / "lgtm",
            self.lgtm_values(),
            release=LGTM_RELEASE,
            namespace="observability",
            overlay=self._overlay("lgtm"),
            fresh=fresh,
        )

    def tenant(self, name: str, *, fresh: bool = False) -> Release:
        tenant = self.registry.get(name)
        return renderer.render(
            self.checkout.charts / "open-webui-stack",
            self.tenant_values(tenant),
            release=TENANT_RELEASE,
            namespace=tenant.namespace,
            overlay=self._overlay("open-webui-stack"),
            fresh=fresh,
        )


LGTM, STACK = "lgtm", "open-webui-stack"
FAULTS = [
    (LGTM, "mimir.yaml", "final_sleep: 0s", "final_sleep: 9s", "backends-are-set-as-one-process"),
    (LGTM, "tempo.yaml", "${OTLP_HTTP_PORT}", "4319", "backends-listen-where-their-pods-say"),
    (LGTM, "tempo.yaml", "burst_size_bytes:", "burst_sizes:", "limits-are-those-of-the-registry"),
    (LGTM, "loki.yaml", "retention_period: {{", "retention_period: 1{{", "limits-are-those-of-the"),
    (LGTM, "mimir.yaml", "{{ .Values.mimir.outOfOrderWindow }}", "30m", "late-samples-are-taken"),
    (LGTM, "mimir.yaml", "stripe_size: 1024", "stripe_size: 16384", "a-tenant-costs-little"),
    (LGTM, "gateway.yaml", "respond @ready 200", "", "the-gateway-decides-in-this-order"),
    (LGTM, "gateway.yaml", "uri strip_prefix {{ . }}", "", "the-gateway-lets-through-what"),
    (LGTM, "grafana-datasources.yaml", "prune: true", "prune: false", "data-sources-link-the-sig"),
    (
        LGTM,
        "grafana-datasources.yaml",
        "datasourceUid: loki{{ .suffix }}",
        "datasourceUid: loki",
        "data-sources-link-the-signals",
    ),
    (LGTM, "grafana-dashboards.yaml", "path: /etc/grafana", "path: /var", "dashboards-are-found"),
    (LGTM, "grafana.yaml", "GF_AUTH_ANONYMOUS", "GF_ANONYMOUS", "variables-say-what-they-must"),
    (LGTM, "_backend.tpl", "path: /ready", "path: /", "pods-are-as-planned"),
    (LGTM, "_helpers.tpl", '"%s:%s" .repo', '"%s:x%s" .repo', "pods-are-as-planned"),
    (LGTM, "_backend.tpl", "toYaml $values.resources", "toYaml dict", "pods-are-as-planned"),
    (LGTM, "_helpers.tpl", "runAsUser: {{", "runAsUser: 1{{", "pods-are-as-planned"),
    (LGTM, "_backend.tpl", "GOMEMLIMIT", "GOMEMORYLIMIT", "heaps-fit-their-limits"),
    (LGTM, "_helpers.tpl", "(list . 0.9)", "(list . 1.1)", "heaps-fit-their-limits"),
    (LGTM, "_helpers.tpl", '"Gi" 1073741824', '"Gi" 1000', "heaps-fit-their-limits"),
    (LGTM, "gateway.yaml", "seconds: 5", "seconds: 1", "pods-end-in-peace"),
    (LGTM, "tempo.yaml", '"grace" 30', '"grace" 120', "pods-end-in-peace"),
    (LGTM, "_backend.tpl", "default 120", "default 60", "pods-end-in-peace"),
    (LGTM, "grafana.yaml", "port: 80\n", "port: 81\n", "services-keep-their-names-and-ports"),
    (LGTM, "externalsecrets.yaml", "$values.refreshInterval", '"9h"', "secrets-come-from-the-s"),
    (LGTM, "networkpolicies.yaml", "TCP, port: 53", "TCP, port: 80", "everything-is-closed-but"),
    (
        LGTM,
        "networkpolicies.yaml",
        "component: alloy",
        "component: open-webui",
        "releases-reach-each-other",
    ),
    (LGTM, "grafana.yaml", '"grafana" "grafana"', '"mimir" "grafana"', "labels-name-the-right"),
    (
        LGTM,
        "grafana.yaml",
        "/var/lib/grafana\n            - name: tmp",
        "/x\n            - name: tmp",
        "volumes-are-where",
    ),
    (LGTM, "_backend.tpl", "storageClassName:", "volumeName:", "volumes-are-of-one-class"),
    (
        STACK,
        "networkpolicies.yaml",
        "- ipBlock: {cidr: {{ . | quote }}}\n        {{- end }}\n      ports:",
        "- ipBlock: {cidr: 8.8.8.8/32}\n        {{- end }}\n      ports:",
        "everything-is-closed-but",
    ),
    (STACK, "searxng.yaml", "[html, json]", "[html]", "the-search-answers-the-application"),
    (LGTM, "_helpers.tpl", "part-of: observability", "part-of: x", "labels-tell-what-belongs"),
    (LGTM, "grafana.yaml", "path: /\n", "path: /x\n", "people-come-in-by-https-only"),
    (STACK, "open-webui.yaml", "WEBUI_URL:", "WEBUI_URI:", "the-application-knows-its-address"),
    (STACK, "alloy.yaml", "loki.source.kubernetes", "loki.source.podlogs", "pod-logs-are-collec"),
]


def test_the_deployment_is_set_as_it_must() -> None:
    deployed = RenderedDeployment(Deployment.load(CHECKOUT))
    found = [f"{check.name}: {problem}" for check in SETTINGS for problem in check.find(deployed)]
    assert found == []


@pytest.mark.parametrize(("chart", "file", "old", "new", "check"), FAULTS, ids=lambda v: v[:30])
def test_a_fault_is_noticed(chart: str, file: str, old: str, new: str, check: str) -> None:
    deployment = Deployment.load(CHECKOUT)
    altered = Altered(
        deployment.checkout,
        deployment.registry,
        chart=chart,
        file=str(Path("templates") / file),
        old=old,
        new=new,
    )
    (name,) = (one for one in SETTINGS.names if one.startswith(check))
    assert list(SETTINGS[name].find(RenderedDeployment(altered)))


def test_a_default_that_leads_nowhere_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(file: Path) -> Mapping[str, Any]:
        if file.parent.name != STACK:
            return dict(read_values(file))
        backends = {"loki": "http://loki.observability.svc:3101"}
        return {"alloy": {"backends": backends, "image": {"repository": "alloy", "tag": "0"}}}

    monkeypatch.setattr(settings, "read_values", read)
    deployed = RenderedDeployment(Deployment.load(CHECKOUT))
    assert list(SETTINGS["defaults-are-of-this-deployment"].find(deployed)) == [
        "open-webui-stack/values.yaml: alloy.backends.loki is "
        "http://loki.observability.svc:3101, where there is no Service",
        "open-webui-stack/values.yaml: alloy.image is alloy:0, which is not in versions.yaml",
    ]


def test_each_check_has_a_fault() -> None:
    proven = {name for name in SETTINGS.names for *_, check in FAULTS if name.startswith(check)}
    assert {*proven, "defaults-are-of-this-deployment"} == set(SETTINGS.names)


def test_paths_lead_through_maps_and_lists() -> None:
    assert at({"a": [{"b": 1}]}, "a.0.b") == 1
    assert at({"a": [{"b": 1}]}, "a.1.b") is None
    assert at(None, "a") is None


def test_alloy_files_are_read_by_block() -> None:
    text = (
        'a.b "c" {\n\trule {\n\t\tx = 1\n\t}\n\trule {\n\t\tx = {\n\t\t\t"k" = 2,\n\t\t}\n\t}\n}\n'
    )
    assert alloy_settings(text) == {"a.b.c.rule.x": "1", "a.b.c.rule#2.x": '{ "k" = 2, }'}


def test_routes_are_read_off_the_caddyfile() -> None:
    text = (
        "@w {\n method POST\n vars_regexp {http.request.uri} ^(/a|/b)([?]|$)\n"
        " not vars {http.auth.user.id} admin\n}\nhandle @w {\n uri strip_prefix /a\n"
        " import backend {$LOKI_URL}\n}\n"
    )
    (route,) = routes(text)
    assert (set(route.methods), route.write, route.strip) == ({"POST"}, True, "/a")
    assert route.upstream == "LOKI_URL"
    assert route.path.fullmatch("/b")


# --- The observability chart ------------------------------------------------------------------


def _observability(name: str, file: str = "", old: str = "", new: str = "") -> Release:
    chart = CHECKOUT.charts / LGTM
    overlay = {}
    if file:
        text = (chart / "templates" / file).read_text(encoding="utf-8")
        assert old in text
        overlay = {f"templates/{file}": text.replace(old, new)}
    values = [chart / "ci" / f"{name}.yaml"]
    return renderer.render(chart, values, release="one", namespace="here", overlay=overlay)


LGTM_FAULTS = [
    (
        "no-tenants",
        "gateway.yaml",
        'error @admin "there',
        '# "there',
        "the-gateway-decides-who-it-is",
    ),
    (
        "production",
        "gateway.yaml",
        "error @foreign",
        "vars @foreign",
        "the-gateway-decides-who-it-is",
    ),
    ("production", "gateway.yaml", '"o=" "[o-r]"', '"o=" "o"', "the-gateway-decides-who-it-is"),
    (
        "no-gateway",
        "grafana-datasources.yaml",
        "httpHeaderValue1",
        "httpHeaderValue2",
        "data-sources-say-for-whom-they-ask",
    ),
    (
        "no-gateway",
        "networkpolicies.yaml",
        '{{- include "lgtm.tenantPeers" . }}\n{{- end',
        "{{- end",
        "every-part-knows-the-same-tenants",
    ),
    (
        "production",
        "monitor.yaml",
        "\t\ttenant_id = ",
        "\t\t//tenant_id = ",
        "the-stacks-own-logs-are-its-own",
    ),
    ("production", "grafana-alerts.yaml", "expression: asked", "expression: A", "alerts-can-fire"),
    (
        "production",
        "monitor.yaml",
        'join "|" }}',
        'join "|" | replace "tempo_ingester_failed_flushes_total" "x" }}',
        "alerts-can-fire",
    ),
    (
        "production",
        "grafana.yaml",
        "}}://{{ $ingress.host }}/",
        "}}://{{ $ingress.className }}/",
        "grafana-is-what-its-values-say",
    ),
    (
        "production",
        "grafana.yaml",
        'ternary "https" "http"',
        'ternary "http" "https"',
        "grafana-is-what-its-values-say",
    ),
    (
        "production",
        "grafana.yaml",
        "GF_SECURITY_SECRET_KEY",
        "GF_SECURITY_SECRET",
        "grafana-is-what-its-values-say",
    ),
    (
        "production",
        "grafana.yaml",
        "        - name: data\n          emptyDir: {}",
        "        - name: data\n          persistentVolumeClaim: {claimName: grafana}",
        "grafana-is-what-its-values-say",
    ),
    (
        "production",
        "monitor.yaml",
        'join "|" }}',
        'join "|" | replace "up" "down" }}',
        "the-monitor-keeps-what-is-shown",
    ),
    (
        "nothing-but-backends",
        "loki.yaml",
        "\noverrides: {}",
        "",
        "every-part-knows-the-same-tenants",
    ),
    (
        "production",
        "monitor.yaml",
        'scrape_interval          = "15s"',
        "",
        "rates-have-samples-enough",
    ),
    *(
        ("production", "canary.yaml", old, new, "the-canary-tells-what-it-finds")
        for old, new in (
            ("- --gateway-url=$(GATEWAY_URL)", ""),
            ('--tenants={{ include "lgtm.allTenants" . | replace "|" "," }}', "--tenants=soev"),
            ("--metrics-as={{ .Values.canary.metricsTenant }}", "--metrics-as=nobody"),
            ("--report=/tmp/report", "--report=/report"),
            ("backoffLimit: 0", ""),
            ("restartPolicy: Never", "restartPolicy: OnFailure"),
            ("(list . 65532)", "(list . 65533)"),
        )
    ),
]


@pytest.mark.parametrize("values", sorted((CHECKOUT.charts / LGTM / "ci").glob("*.yaml")), ids=str)
def test_the_scenarios_of_observability_are_sound(values: Path) -> None:
    release = _observability(values.stem)
    assert [p for check in OBSERVABILITY for p in check.find(release)] == []


@pytest.mark.parametrize(("name", "file", "old", "new", "check"), LGTM_FAULTS)
def test_a_fault_of_observability_is_noticed(
    name: str, file: str, old: str, new: str, check: str
) -> None:
    assert list(OBSERVABILITY[check].find(_observability(name, file, old, new)))


def test_the_canary_is_the_user_of_its_image() -> None:
    dockerfile = (CHECKOUT.root / "Dockerfile").read_text(encoding="utf-8")
    assert f"\nUSER {':'.join(map(str, observability.CANARY_USER))}\n" in dockerfile


def test_each_check_of_observability_has_a_fault() -> None:
    assert {check for *_, check in LGTM_FAULTS} == set(OBSERVABILITY.names)


# --- The application's chart --------------------------------------------------------------------

STACK_FAULTS = [
    ("http", "_otel.tpl", "%s/v1/logs", "%s/v1/log", "each-signal-goes-to-its-own-path"),
    (
        "replicas",
        "open-webui.yaml",
        "WEBSOCKET_MANAGER: redis",
        "",
        "replicas-share-what-they-must",
    ),
    (
        "everything",
        "open-webui.yaml",
        '"EXTERNAL_WEB_LOADER_API_KEY"',
        '"EXTERNAL_WEB_LOADER_KEY"',
        "services-that-ask-for-a-key-get-one",
    ),
    (
        "default",
        "networkpolicies.yaml",
        "$world = append $world ($destination.port | int)",
        "$world = $world",
        "providers-outside-can-be-reached",
    ),
    (
        "direct",
        "alloy.yaml",
        '"/v1/traces"',
        '"/v1/metrics"',
        "alloy-passes-everything-on-as-its-tenant",
    ),
    (
        "everything",
        "alloy.yaml",
        "traces  = [otelcol.processor.transform.tenant.input]",
        "traces  = [otelcol.exporter.otlphttp.default.input]",
        "alloy-passes-everything-on-as-its-tenant",
    ),
    (
        "everything",
        "open-webui.yaml",
        "WEBUI_ADMIN_NAME:",
        "WEBUI_ADMIN:",
        "programs-get-variables-that-they-read",
    ),
    (
        "everything",
        "open-webui.yaml",
        "WEB_LOADER_ENGINE: external",
        "",
        "programs-get-variables-that-they-read",
    ),
    (
        "default",
        "open-webui.yaml",
        '"PGPASSWORD" "secrets" "postgres-password"',
        '"PGPASSWORD" "secrets" "webui-secret-key"',
        "the-database-is-the-one-that-runs",
    ),
    (
        "everything",
        "alloy.yaml",
        'check_interval         = "1s"',
        'check_interval         = "10s"',
        "alloy-passes-everything-on-as-its-tenant",
    ),
    ("everything", "optional.yaml", "timeoutSeconds: 5", "", "pods-are-as-planned"),
    ("everything", "_helpers.tpl", '"http" 11235', '"http" 11236', "pods-are-as-planned"),
    (
        "everything",
        "networkpolicies.yaml",
        "172.16.0.0/12, ",
        "",
        "the-internet-is-not-the-cluster",
    ),
]


def _scenario(name: str, overlay: dict[str, str] | None = None) -> Release:
    chart = CHECKOUT.charts / STACK
    values: list[renderer.Values] = [chart / "ci" / f"{name}-values.yaml"]
    if name == "default":  # without SearXNG nothing else opens the port
        values.append({"searxng": {"enabled": False}})
    return renderer.render(chart, values, release="one", namespace="here", overlay=overlay)


@pytest.mark.parametrize("values", sorted((CHECKOUT.charts / STACK / "ci").glob("*.yaml")), ids=str)
def test_the_applications_scenarios_are_sound(values: Path) -> None:
    release = renderer.render(CHECKOUT.charts / STACK, [values], release="one", namespace="here")
    found = [f"{check.name}: {p}" for check in APPLICATION for p in check.find(release)]
    assert found == []


@pytest.mark.parametrize(("name", "file", "old", "new", "check"), STACK_FAULTS)
def test_a_fault_of_the_application_is_noticed(
    name: str, file: str, old: str, new: str, check: str
) -> None:
    path = f"templates/{file}"
    text = (CHECKOUT.charts / STACK / path).read_text(encoding="utf-8")
    assert old in text
    assert not list(APPLICATION[check].find(_scenario(name)))
    assert list(APPLICATION[check].find(_scenario(name, {path: text.replace(old, new)})))


def test_each_check_of_the_application_has_a_fault() -> None:
    assert {check for *_, check in STACK_FAULTS} == set(APPLICATION.names)


@pytest.mark.parametrize("limit", ["512Mi", "536870912", 536870912])
def test_a_limit_is_the_same_however_it_is_written(limit: object) -> None:
    """A plain number reaches a template as 5.36870912e+08."""
    changed = {"tempo": {"resources": {"limits": {"memory": limit}}}}
    release = Deployment.load(Checkout.find()).with_values(lgtm=[changed]).lgtm()
    (container,) = release.get("StatefulSet", "tempo")["spec"]["template"]["spec"]["containers"]
    values = {each["name"]: each.get("value") for each in container["env"]}
    assert values["GOMEMLIMIT"] == str(536870912 * 9 // 10)
