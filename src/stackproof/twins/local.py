"""Faults that only running programs show: each is proven to leak, or to lose data, for real."""

from __future__ import annotations

from stackproof.isolation.verdict import Verdict
from stackproof.model import Signal

from .base import Edit, Layer, Twin, edited

_ALLOY = "charts/open-webui-stack/templates/alloy.yaml"
_GATEWAY = "charts/lgtm/templates/gateway.yaml"
_MIMIR = "charts/lgtm/templates/mimir.yaml"
_LOKI = "charts/lgtm/templates/loki.yaml"
_TEMPO = "charts/lgtm/templates/tempo.yaml"
_SOURCES = "charts/lgtm/templates/grafana-datasources.yaml"

_OTEL = "charts/open-webui-stack/templates/_otel.tpl"

_ONE_TENANT_FOR_ALL = Edit(
    _ALLOY,
    'value: {{ include "open-webui-stack.tenant" . | quote }}\n  {{- if $alloy.gateway',
    "value: soev\n  {{- if $alloy.gateway",
)

LOCAL: tuple[Twin, ...] = (
    edited(
        "mimir-asks-nobody-who-it-is",
        "multitenancy_enabled is false in Mimir: everything is one tenant's",
        "isolation",
        r"leak: .* reads .*'s metrics through mimir",
        Edit(_MIMIR, "multitenancy_enabled: true", "multitenancy_enabled: false"),
        layer=Layer.LOCAL,
        signals=[Signal.METRICS],
    ),
    edited(
        "loki-asks-nobody-who-it-is",
        "auth_enabled is false in Loki: everything is one tenant's",
        "isolation",
        r"leak: .* reads .*'s logs through loki",
        Edit(_LOKI, "auth_enabled: true", "auth_enabled: false"),
        layer=Layer.LOCAL,
        signals=[Signal.LOGS],
    ),
    edited(
        "tempo-asks-nobody-who-it-is",
        "multitenancy_enabled is false in Tempo: everything is one tenant's",
        "isolation",
        r"leak: .* reads .*'s traces through tempo",
        Edit(_TEMPO, "multitenancy_enabled: true", "multitenancy_enabled: false"),
        layer=Layer.LOCAL,
        signals=[Signal.TRACES],
    ),
    edited(
        "gateway-believes-the-header",
        "the gateway passes the client's X-Scope-OrgID on to the backends",
        "isolation",
        r"leak: .* reads .* through|not refused: .*another tenant",
        Edit(_GATEWAY, 'error @foreign "X-Scope-OrgID names another tenant" 403', ""),
        Edit(
            _GATEWAY,
            "vars @tenant tenant {http.auth.user.id}",
            "vars @tenant tenant {http.auth.user.id}\n"
            "\t\tvars @foreign tenant {http.request.header.X-Scope-OrgID}",
        ),
        layer=Layer.LOCAL,
    ),
    edited(
        "gateway-drops-a-foreign-header",
        "a header that names another tenant has no effect, and its sender is not told",
        "isolation",
        r"another tenant's header was answered with HTTP 200 instead of 401 or 403",
        Edit(_GATEWAY, 'error @foreign "X-Scope-OrgID names another tenant" 403', ""),
        layer=Layer.LOCAL,
    ),
    edited(
        "alloy-is-always-soev",
        "every tenant's Alloy sends as soev, and no gateway asks for a password",
        "isolation",
        r"leak: soev reads .*enterprise-a",
        _ONE_TENANT_FOR_ALL,
        layer=Layer.LOCAL,
        lgtm={"gateway": {"enabled": False}},
        tenant={"alloy": {"gateway": {"enabled": False}}},
        number=7,
    ),
    edited(
        "alloy-is-always-soev-behind-the-gateway",
        "every tenant's Alloy sends as soev, with a password that is not soev's",
        "isolation",
        r"missing: enterprise-a does not see",
        _ONE_TENANT_FOR_ALL,
        layer=Layer.LOCAL,
        signals=[Signal.LOGS],
        verdict=Verdict.INCOMPLETE,
        deadline_s=5,
        number=7,
    ),
    edited(
        "all-tenants-is-a-pattern",
        "the all-tenants data sources ask for soev|enterprise-.*, which is no pattern",
        "isolation",
        r"wrong view: data source \w+ \('soev\|enterprise-\.\*'\)",
        Edit(
            _SOURCES,
            '"title" "all tenants" "tenants" .)',
            '"title" "all tenants" "tenants" "soev|enterprise-.*")',
        ),
        layer=Layer.LOCAL,
        lgtm={"gateway": {"enabled": False}},
        tenant={"alloy": {"gateway": {"enabled": False}}},
        verdict=Verdict.INCOMPLETE,
        deadline_s=5,
        number=9,
    ),
    edited(
        "application-expects-tls",
        "OTEL_EXPORTER_OTLP_INSECURE is false, and the endpoint does not speak TLS",
        "arrival.every-signal-arrives",
        r"traces of soev's .* do not arrive: .*Handshake failed .*WRONG_VERSION_NUMBER",
        Edit(_OTEL, "{{ $otel.insecure | quote }}", '"false"'),
        layer=Layer.LOCAL,
        deadline_s=30,
    ),
    edited(
        "application-posts-all-to-one-url",
        "with protocol http all signals have one endpoint: the application appends no path",
        "arrival.every-signal-arrives",
        r"traces of soev's .* do not arrive: .*Failed to export span batch code: 404",
        Edit(_OTEL, '{{- if eq $otel.protocol "http" }}', "{{- if false }}"),
        layer=Layer.LOCAL,
        tenant={"openWebui": {"config": {"telemetry": {"otel": {"protocol": "http"}}}}},
        deadline_s=30,
    ),
    edited(
        "lines-are-exported-twice",
        "OpenTelemetry's own log handler is on beside the application's",
        "arrival.each-line-arrives-once",
        r"a line of soev's is stored 2 times",
        Edit(
            _OTEL,
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
        r"2 replicas write one series: its counter goes back",
        Edit(_OTEL, '    "service.instance.id=$(POD_NAME)"\n', ""),
        layer=Layer.LOCAL,
        replicas=2,
        deadline_s=60,
    ),
)
