"""Faults that only running programs show: each is proven to leak, or to lose data, for real."""

from __future__ import annotations

from stackproof.isolation.verdict import Verdict
from stackproof.model import Signal

from .base import Edit, Layer, Twin

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
    Twin(
        name="mimir-asks-nobody-who-it-is",
        fault="multitenancy_enabled is false in Mimir: everything is one tenant's",
        layer=Layer.LOCAL,
        caught_by="isolation",
        reason=r"leak: .* reads .*'s metrics through mimir",
        edits=[Edit(_MIMIR, "multitenancy_enabled: true", "multitenancy_enabled: false")],
        signals=[Signal.METRICS],
    ),
    Twin(
        name="loki-asks-nobody-who-it-is",
        fault="auth_enabled is false in Loki: everything is one tenant's",
        layer=Layer.LOCAL,
        caught_by="isolation",
        reason=r"leak: .* reads .*'s logs through loki",
        edits=[Edit(_LOKI, "auth_enabled: true", "auth_enabled: false")],
        signals=[Signal.LOGS],
    ),
    Twin(
        name="tempo-asks-nobody-who-it-is",
        fault="multitenancy_enabled is false in Tempo: everything is one tenant's",
        layer=Layer.LOCAL,
        caught_by="isolation",
        reason=r"leak: .* reads .*'s traces through tempo",
        edits=[Edit(_TEMPO, "multitenancy_enabled: true", "multitenancy_enabled: false")],
        signals=[Signal.TRACES],
    ),
    Twin(
        name="gateway-believes-the-header",
        fault="the gateway passes the client's X-Scope-OrgID on to the backends",
        layer=Layer.LOCAL,
        caught_by="isolation",
        reason=r"leak: .* reads .* through|not refused: .*another tenant",
        edits=[
            Edit(_GATEWAY, 'error @foreign "X-Scope-OrgID names another tenant" 403', ""),
            Edit(
                _GATEWAY,
                "vars @tenant tenant {http.auth.user.id}",
                "vars @tenant tenant {http.auth.user.id}\n"
                "\t\tvars @foreign tenant {http.request.header.X-Scope-OrgID}",
            ),
        ],
    ),
    Twin(
        name="gateway-drops-a-foreign-header",
        fault="a header that names another tenant has no effect, and who sent it is not told",
        layer=Layer.LOCAL,
        caught_by="isolation",
        reason=r"another tenant's header was answered with HTTP 200 instead of 401 or 403",
        edits=[Edit(_GATEWAY, 'error @foreign "X-Scope-OrgID names another tenant" 403', "")],
    ),
    Twin(
        name="alloy-is-always-soev",
        fault="every tenant's Alloy sends as soev, and no gateway asks for a password",
        layer=Layer.LOCAL,
        caught_by="isolation",
        reason=r"leak: soev reads .*enterprise-a",
        edits=[_ONE_TENANT_FOR_ALL],
        lgtm={"gateway": {"enabled": False}},
        tenant={"alloy": {"gateway": {"enabled": False}}},
        number=7,
    ),
    Twin(
        name="alloy-is-always-soev-behind-the-gateway",
        fault="every tenant's Alloy sends as soev, with a password that is not soev's",
        layer=Layer.LOCAL,
        caught_by="isolation",
        reason=r"missing: enterprise-a does not see",
        edits=[_ONE_TENANT_FOR_ALL],
        signals=[Signal.LOGS],
        verdict=Verdict.INCOMPLETE,
        deadline_s=5,
        number=7,
    ),
    Twin(
        name="all-tenants-is-a-pattern",
        fault="the all-tenants data sources ask for soev|enterprise-.*, which is no pattern",
        layer=Layer.LOCAL,
        caught_by="isolation",
        reason=r"wrong view: data source \w+ \('soev\|enterprise-\.\*'\)",
        edits=[
            Edit(
                _SOURCES,
                '"title" "all tenants" "tenants" .)',
                '"title" "all tenants" "tenants" "soev|enterprise-.*")',
            )
        ],
        lgtm={"gateway": {"enabled": False}},
        tenant={"alloy": {"gateway": {"enabled": False}}},
        verdict=Verdict.INCOMPLETE,
        deadline_s=5,
        number=9,
    ),
    Twin(
        name="application-expects-tls",
        fault="OTEL_EXPORTER_OTLP_INSECURE is false, and the endpoint speaks no TLS",
        layer=Layer.LOCAL,
        caught_by="arrival.every-signal-arrives",
        reason=r"traces of soev's .* do not arrive: .*Handshake failed .*WRONG_VERSION_NUMBER",
        edits=[Edit(_OTEL, "{{ $otel.insecure | quote }}", '"false"')],
        deadline_s=30,
    ),
    Twin(
        name="application-posts-all-to-one-url",
        fault="with protocol http all signals have one endpoint: the application appends no path",
        layer=Layer.LOCAL,
        caught_by="arrival.every-signal-arrives",
        reason=r"traces of soev's .* do not arrive: .*Failed to export span batch code: 404",
        edits=[Edit(_OTEL, '{{- if eq $otel.protocol "http" }}', "{{- if false }}")],
        tenant={"openWebui": {"config": {"telemetry": {"otel": {"protocol": "http"}}}}},
        deadline_s=30,
    ),
    Twin(
        name="lines-are-exported-twice",
        fault="OpenTelemetry's own log handler is on beside the application's",
        layer=Layer.LOCAL,
        caught_by="arrival.each-line-arrives-once",
        reason=r"a line of soev's is stored 2 times",
        edits=[
            Edit(
                _OTEL,
                'OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION: "false"',
                'OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION: "true"',
            )
        ],
        deadline_s=30,
    ),
    Twin(
        name="replicas-without-an-instance-id",
        fault="the application's resource has no service.instance.id, and there are two replicas",
        layer=Layer.LOCAL,
        caught_by="arrival.replicas-are-told-apart",
        reason=r"2 replicas write one series: its counter goes back",
        edits=[Edit(_OTEL, '    "service.instance.id=$(POD_NAME)"\n', "")],
        replicas=2,
        deadline_s=60,
    ),
)
