"""Changes that are at fault while they roll out, or for what was there before."""

from __future__ import annotations

from typing import Any

from .base import Edit, Layer, Twin, edited, in_lgtm


def _upgrade(name: str, fault: str, reason: str, *edits: Edit, **more: Any) -> Twin:
    return edited(name, fault, "upgrade", reason, *edits, layer=Layer.LOCAL, **more)


UPGRADE: tuple[Twin, ...] = (
    # Before and after it all is well: the new files are at fault in the old pod alone, which has
    # not the variables that they ask for.
    _upgrade(
        "gateway-is-open-while-it-rolls",
        "the gateway's new file refuses foreign headers by variables that only its new pod has",
        r"^during, (\d+ times from|after) [\d.]+.* s: leak: \S+ reads \S+'s|"
        r"^during, .*(another tenant's header|a list of tenants) was answered with HTTP 200",
        in_lgtm(
            "gateway.yaml",
            'error @foreign "X-Scope-OrgID names another tenant" 403',
            "{$ON_FOREIGN:vars} @foreign names_another 403",
        ),
        in_lgtm(
            "gateway.yaml",
            "vars @tenant tenant {http.auth.user.id}",
            "vars @tenant tenant {http.auth.user.id}\n"
            "\t\tvars @foreign {$ON_FOREIGN_SET:tenant} {http.request.header.X-Scope-OrgID}",
        ),
        in_lgtm(
            "gateway.yaml",
            '            - name: HTTP_PORT\n              value: "8080"\n',
            '            - name: HTTP_PORT\n              value: "8080"\n'
            "            - name: ON_FOREIGN\n              value: error\n"
            "            - name: ON_FOREIGN_SET\n              value: nothing\n",
        ),
        pace_s=0.3,
    ),
    _upgrade(
        "gateway-forgets-a-tenant",
        "the gateway's new pod has no file of the last tenant's account",
        r"^after: missing: enterprise-b's traces were not taken|"
        r"^of before: enterprise-b's .*HTTP 401",
        in_lgtm(
            "gateway.yaml",
            'sources:\n              {{- range prepend .Values.tenants (dict "name" "admin") }}',
            "sources:\n              "
            '{{- range prepend (initial .Values.tenants) (dict "name" "admin") }}',
        ),
        deadline_s=6,
    ),
    _upgrade(
        "volume-of-another-name",
        "Mimir's claim has another name: its pod gets an empty volume",
        r"^of before: soev's metrics, asked for as of hours ago, cannot be read: numbers \[\]",
        in_lgtm(
            "_backend.tpl",
            "- name: data\n              mountPath",
            '- name: {{ eq $name "mimir" | ternary "store" "data" }}\n              mountPath',
        ),
        in_lgtm(
            "_backend.tpl",
            "name: data\n        labels",
            'name: {{ eq $name "mimir" | ternary "store" "data" }}\n        labels',
        ),
    ),
    _upgrade(
        "retention-of-an-hour",
        "all telemetry that is older than an hour is no longer kept",
        r"^of before: soev's metrics, asked for as of hours ago, cannot be read: numbers \[\]",
        Edit("observability/tenants.yaml", "retention: 744h", "retention: 1h"),
        lgtm={"defaults": {"retention": "1h"}},
    ),
)
