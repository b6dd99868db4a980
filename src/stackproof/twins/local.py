"""Faults that only running programs show: each is proven to leak, or to lose data, for real."""

from __future__ import annotations

from stackproof.stack.base import Signal
from stackproof.twins.base import Edit, Layer, Twin
from stackproof.verdict import Verdict

_ALLOY = "charts/open-webui-stack/templates/alloy.yaml"
_GATEWAY = "charts/lgtm/templates/gateway.yaml"
_MIMIR = "charts/lgtm/templates/mimir.yaml"
_LOKI = "charts/lgtm/templates/loki.yaml"
_TEMPO = "charts/lgtm/templates/tempo.yaml"
_SOURCES = "charts/lgtm/templates/grafana-datasources.yaml"

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
        name="alloy-is-always-soev",
        fault="every tenant's Alloy sends as soev, and no gateway asks for a password",
        layer=Layer.LOCAL,
        caught_by="isolation",
        reason=r"leak: soev reads .*enterprise-a",
        edits=[_ONE_TENANT_FOR_ALL],
        lgtm={"gateway": {"enabled": False}},
        tenant={"alloy": {"gateway": {"enabled": False}}},
        seed=7,
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
        seed=7,
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
        seed=9,
    ),
)
