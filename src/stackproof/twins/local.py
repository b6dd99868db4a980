"""Faults that only running programs show: each is proven to leak, or to lose data, for real."""

from __future__ import annotations

from typing import Any

from stackproof.isolation.verdict import Verdict
from stackproof.model import Signal

from .base import Edit, Layer, Twin, edited, in_lgtm, in_tenant

_ONE_TENANT_FOR_ALL = in_tenant(
    "alloy.yaml", '{{ include "open-webui-stack.tenant" . | quote }}\n  {{-', "soev\n  {{-"
)

_NO_GATEWAY: dict[str, Any] = {
    "lgtm": {"gateway": {"enabled": False}},
    "tenant": {"alloy": {"gateway": {"enabled": False}}},
}


def _proof(name: str, fault: str, reason: str, *edits: Edit, **more: Any) -> Twin:
    return edited(name, fault, "isolation", reason, *edits, layer=Layer.LOCAL, **more)


LOCAL: tuple[Twin, ...] = (
    _proof(
        "mimir-asks-nobody-who-it-is",
        "multitenancy_enabled is false in Mimir: everything is one tenant's",
        r"leak: .* reads .*'s metrics through mimir",
        in_lgtm("mimir.yaml", "multitenancy_enabled: true", "multitenancy_enabled: false"),
        signals=[Signal.METRICS],
    ),
    _proof(
        "loki-asks-nobody-who-it-is",
        "auth_enabled is false in Loki: everything is one tenant's",
        r"leak: .* reads .*'s logs through loki",
        in_lgtm("loki.yaml", "auth_enabled: true", "auth_enabled: false"),
        signals=[Signal.LOGS],
    ),
    _proof(
        "tempo-asks-nobody-who-it-is",
        "multitenancy_enabled is false in Tempo: everything is one tenant's",
        r"leak: .* reads .*'s traces through tempo",
        in_lgtm("tempo.yaml", "multitenancy_enabled: true", "multitenancy_enabled: false"),
        signals=[Signal.TRACES],
    ),
    _proof(
        "gateway-believes-the-header",
        "the gateway passes the client's X-Scope-OrgID on to the backends",
        r"leak: .* reads .* through|not refused: .*another tenant",
        in_lgtm("gateway.yaml", 'error @foreign "X-Scope-OrgID names another tenant" 403', ""),
        in_lgtm(
            "gateway.yaml",
            "vars @tenant tenant {http.auth.user.id}",
            "vars @tenant tenant {http.auth.user.id}\n"
            "\t\tvars @foreign tenant {http.request.header.X-Scope-OrgID}",
        ),
    ),
    _proof(
        "gateway-drops-a-foreign-header",
        "a header that names another tenant has no effect, and its sender is not told",
        r"another tenant's header was answered with HTTP 200 instead of 401 or 403",
        in_lgtm("gateway.yaml", 'error @foreign "X-Scope-OrgID names another tenant" 403', ""),
    ),
    _proof(
        "alloy-is-always-soev",
        "every tenant's Alloy sends as soev, and no gateway asks for a password",
        r"leak: soev reads .*enterprise-a",
        _ONE_TENANT_FOR_ALL,
        **_NO_GATEWAY,
        number=7,
    ),
    _proof(
        "alloy-is-always-soev-behind-the-gateway",
        "every tenant's Alloy sends as soev, with a password that is not soev's",
        r"missing: enterprise-a does not see",
        _ONE_TENANT_FOR_ALL,
        signals=[Signal.LOGS],
        verdict=Verdict.INCOMPLETE,
        deadline_s=5,
        number=7,
    ),
    _proof(
        "all-tenants-is-a-pattern",
        "the all-tenants data sources ask for soev|enterprise-.*, which is no pattern",
        r"wrong view: data source \w+ \('soev\|enterprise-\.\*'\)",
        in_lgtm("grafana-datasources.yaml", '" "tenants" .)', '" "tenants" "soev|enterprise-.*")'),
        **_NO_GATEWAY,
        verdict=Verdict.INCOMPLETE,
        deadline_s=5,
        number=9,
    ),
    edited(
        "application-expects-tls",
        "OTEL_EXPORTER_OTLP_INSECURE is false, and the endpoint does not speak TLS",
        "arrival.every-signal-arrives",
        r"traces of soev's .* do not arrive: .*Handshake failed .*WRONG_VERSION_NUMBER",
        in_tenant("_otel.tpl", "{{ $otel.insecure | quote }}", '"false"'),
        layer=Layer.LOCAL,
        deadline_s=30,
    ),
    edited(
        "application-posts-all-to-one-url",
        "with protocol http all signals have one endpoint: the application appends no path",
        "arrival.every-signal-arrives",
        r"traces of soev's .* do not arrive: .*Failed to export span batch code: 404",
        in_tenant("_otel.tpl", '{{- if eq $otel.protocol "http" }}', "{{- if false }}"),
        tenant={"openWebui": {"config": {"telemetry": {"otel": {"protocol": "http"}}}}},
        layer=Layer.LOCAL,
        deadline_s=30,
    ),
    edited(
        "lines-are-exported-twice",
        "OpenTelemetry's own log handler is on beside the application's",
        "arrival.each-line-arrives-once",
        r"a line of soev's is stored 2 times",
        in_tenant(
            "_otel.tpl",
            'OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION: "false"',
            'OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION: "true"',
        ),
        layer=Layer.LOCAL,
        deadline_s=30,
    ),
    edited(
        "replicas-without-an-instance-id",
        "the application's resource has no service.instance.id, and there are two replicas",
        "arrival.replicas-are-told-apart",
        r"2 replicas for one series: its counter goes back",
        in_tenant("_otel.tpl", '    "service.instance.id=$(POD_NAME)"\n', ""),
        replicas=2,
        deadline_s=60,
        layer=Layer.LOCAL,
    ),
)
