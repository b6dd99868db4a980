"""Faults that the rendered bytes show: caught in milliseconds, before anything runs."""

from __future__ import annotations

from typing import Any

from .base import Edit, Layer, Twin, edited, in_lgtm, in_tenant, invalid


def _otel(**values: object) -> dict[str, Any]:
    return {"openWebui": {"config": {"telemetry": {"otel": values}}}}


_VALUES: tuple[Twin, ...] = (
    invalid(
        "key-of-another-chart",
        "resources: at the top, where the distributed charts ignore it",
        r"additional properties 'resources' not allowed",
        lgtm={"resources": {"requests": {"cpu": "1"}}},
        number=1,
    ),
    invalid(
        "replicas-of-a-monolith",
        "mimir.replicas, a key of another chart",
        r"at '/mimir': additional properties 'replicas' not allowed",
        lgtm={"mimir": {"replicas": 3}},
        number=1,
    ),
    invalid(
        "resources-at-the-wrong-level",
        "tempo.requests instead of tempo.resources.requests",
        r"at '/tempo': additional properties 'requests' not allowed",
        lgtm={"tempo": {"requests": {"cpu": "1"}}},
        number=4,
    ),
    invalid(
        "tls-where-nobody-speaks-it",
        "insecure is false, with gRPC and http://: the application sends nothing",
        r"openWebui/config/telemetry/otel",
        tenant=_otel(insecure=False, endpoint="http://open-webui-alloy:4317"),
        number=11,
    ),
    invalid(
        "ratio-without-a-ratio",
        "a ratio sampler without its argument samples everything",
        r"openWebui/config/telemetry/otel.*",
        tenant=_otel(sampler="parentbased_traceidratio"),
        number=11,
    ),
    invalid(
        "protocol-that-is-taken-for-grpc",
        "protocol http/protobuf: the application knows exactly http, and takes all else for grpc",
        r"openWebui/config/telemetry/otel/protocol",
        tenant=_otel(protocol="http/protobuf"),
        number=11,
    ),
    invalid(
        "telemetry-at-the-wrong-indent",
        "telemetry: beside config: instead of below it",
        r"at '/openWebui': additional properties 'telemetry' not allowed",
        tenant={"openWebui": {"telemetry": {"otel": {"enabled": True}}}},
        number=12,
    ),
    invalid(
        "image-of-the-day",
        "an image tag that may mean another image tomorrow",
        r"loki/image/tag",
        lgtm={"loki": {"image": {"tag": "latest"}}},
        number=21,
    ),
    invalid(
        "tenant-with-a-pattern-for-a-name",
        "a tenant called enterprise-.*",
        r"tenants/0/name.*does not match pattern",
        lgtm={
            "tenants": [
                {"name": "enterprise-.*", "namespace": "enterprise", "secretPrefix": "enterprise"}
            ]
        },
        number=9,
    ),
    invalid(
        "tenant-called-admin",
        "a tenant whose user is the administrator",
        r"tenants/0/name",
        lgtm={"tenants": [{"name": "admin", "namespace": "admin", "secretPrefix": "admin"}]},
    ),
)

_REGISTRY: tuple[Twin, ...] = (
    edited(
        "prefix-of-the-platform",
        "a tenant whose secrets' keys begin like the administrator's",
        "registry",
        r"secretPrefix 'lgtm' cannot be used",
        Edit("observability/tenants.yaml", "secretPrefix: enterprise-b", "secretPrefix: lgtm"),
        layer=Layer.SCHEMA,
    ),
    edited(
        "two-tenants-in-one-namespace",
        "two tenants' Alloys in one namespace, where each reaches the other's",
        "registry",
        r"namespace 'enterprise-a' is already taken",
        Edit("observability/tenants.yaml", "namespace: enterprise-b", "namespace: enterprise-a"),
        layer=Layer.SCHEMA,
    ),
)

_BACKENDS: tuple[Twin, ...] = (
    edited(
        "mimir-on-another-port",
        "the Service of Mimir has another port than everybody asks for",
        "deployment.references-resolve",
        r"mimir.*9009",
        in_lgtm("mimir.yaml", '"port" 9009', '"port" 8080'),
        number=1,
    ),
    edited(
        "mimir-directories-overlap",
        "the compactor works in the directory that holds the blocks",
        "deployment.directories-do-not-overlap",
        r"blocks_storage\.filesystem\.dir .* lies in compactor\.data_dir",
        in_lgtm("mimir.yaml", "${DATA_DIR}/compactor", "${DATA_DIR}"),
        number=2,
    ),
    edited(
        "mimir-refuses-to-start",
        "blocks and compactor in one directory, as Mimir itself sees it",
        "configs",
        r"mimir refuses its configuration",
        in_lgtm("mimir.yaml", "${DATA_DIR}/compactor", "${DATA_DIR}/blocks"),
        number=2,
    ),
    edited(
        "mimir-federation-off",
        "Mimir answers for one tenant at a time",
        "deployment.admins-can-name-several-tenants",
        r"mimir\.yaml: tenant_federation\.enabled is False",
        in_lgtm("mimir.yaml", "federation:\n  enabled: true", "federation:\n  enabled: false"),
        number=2,
    ),
    edited(
        "mimir-keeps-for-ever",
        "no retention in Mimir: its default is for ever",
        "deployment.retention-is-in-force",
        r"mimir keeps soev's data for ever",
        in_lgtm("mimir.yaml", "compactor_blocks_retention_period: {{ .retention }}\n", ""),
        number=2,
    ),
    edited(
        "mimir-writes-beside-its-volume",
        "the blocks are written to the container's own file system",
        "deployment.data-lies-on-the-volume",
        r"blocks_storage\.filesystem\.dir is /var/blocks: lost with the pod",
        in_lgtm("mimir.yaml", "${DATA_DIR}/blocks", "/var/blocks"),
    ),
    edited(
        "loki-keeps-for-ever",
        "retention_period without compactor.retention_enabled",
        "deployment.retention-is-in-force",
        r"compactor\.retention_enabled is False",
        in_lgtm("loki.yaml", "retention_enabled: true", "retention_enabled: false"),
        number=3,
    ),
    edited(
        "loki-does-not-know-where-to-delete",
        "retention without delete_request_store, as Loki itself sees it",
        "configs",
        r"loki refuses its configuration: (.|\n)*delete-request-store",
        in_lgtm("loki.yaml", "  delete_request_store: filesystem\n", ""),
        number=3,
    ),
    edited(
        "loki-one-tenant-at-a-time",
        "the all-tenants data source of Loki has no federation behind it",
        "deployment.admins-can-name-several-tenants",
        r"loki\.yaml: querier\.multi_tenant_queries_enabled is False",
        in_lgtm(
            "loki.yaml", "multi_tenant_queries_enabled: true", "multi_tenant_queries_enabled: false"
        ),
        number=10,
    ),
    edited(
        "loki-asks-nobody",
        "auth_enabled is false in Loki",
        "deployment.multi-tenancy-is-on",
        r"loki\.yaml: auth_enabled is False",
        in_lgtm("loki.yaml", "auth_enabled: true", "auth_enabled: false"),
    ),
    edited(
        "tempo-keeps-a-day",
        "Tempo's default retention instead of the tenant's",
        "deployment.retention-is-in-force",
        r"tempo keeps soev's data 24h",
        in_lgtm("tempo.yaml", "block_retention: {{ .retention }}", "block_retention: 24h"),
        number=4,
    ),
    edited(
        "no-metrics-from-traces",
        "Tempo's metrics generator is off for tenants with limits of their own",
        "deployment.spans-make-metrics",
        r"tempo makes no service-graphs and span-metrics.* for soev",
        in_lgtm("tempo.yaml", ": [service-graphs, span-metrics, local-blocks]", ": []"),
        number=10,
    ),
    edited(
        "metrics-from-traces-for-one-tenant",
        "a fixed X-Scope-OrgID on the generator's remote write wins over the trace's tenant",
        "deployment.spans-make-metrics",
        r"gets a fixed X-Scope-OrgID",
        in_lgtm(
            "tempo.yaml",
            "send_exemplars: true",
            "send_exemplars: true\n        headers: {X-Scope-OrgID: soev}",
        ),
    ),
    edited(
        "gossip-on-the-network",
        "a key that Tempo does not know, beside the one that was meant",
        "configs",
        r"tempo refuses its configuration",
        in_lgtm("tempo.yaml", "bind_addr: [127.0.0.1]", "bind_address: 127.0.0.1"),
    ),
)

_ALLOY: tuple[Twin, ...] = (
    edited(
        "component-that-does-not-exist",
        "otelcol.exporter.prometheusremotewrite is no component of Alloy",
        "configs",
        r'component name "otelcol\.exporter\.prometheusremotewrite"',
        in_tenant("alloy.yaml", ".exporter.otlphttp", ".exporter.prometheusremotewrite"),
        number=5,
    ),
    edited(
        "alloy-on-every-node",
        "a DaemonSet: every node's Alloy collects every pod's lines",
        "deployment.each-alloy-is-its-tenant",
        r"enterprise-a has DaemonSet/open-webui-alloy",
        in_tenant("alloy.yaml", '"kind" "Deployment"', '"kind" "DaemonSet"'),
        number=6,
    ),
    edited(
        "service-without-otlp",
        "Alloy's Service lacks 4317, where the application sends",
        "deployment.references-resolve",
        r"open-webui-alloy.*4317",
        in_tenant(
            "services.yaml",
            'include "open-webui-stack.ports" .name | fromYaml',
            'omit (include "open-webui-stack.ports" .name | fromYaml) "otlp-grpc"',
        ),
        number=6,
    ),
    edited(
        "everybody-is-soev",
        "every tenant's Alloy sends as soev",
        "deployment.each-alloy-is-its-tenant",
        r"enterprise-a's Alloy sends as soev",
        in_tenant("alloy.yaml", ': {{ include "open-webui-stack.tenant" . | quote }}', ": soev"),
        number=7,
    ),
    edited(
        "tenant-that-nobody-renders",
        "tenantId does not reach the application's resource attributes",
        "deployment.replicas-are-told-apart",
        r"soev: OTEL_RESOURCE_ATTRIBUTES does not say tenant\.id=soev",
        in_tenant(
            "_otel.tpl", '    (printf "tenant.id=%s" (include "open-webui-stack.tenant" .))\n', ""
        ),
        number=8,
    ),
)

_GRAFANA: tuple[Twin, ...] = (
    edited(
        "data-sources-ask-for-a-pattern",
        "the all-tenants data sources ask for soev|enterprise-.*, which is no pattern",
        "deployment.data-sources-name-known-tenants",
        r"'enterprise-\.\*', which can be no tenant",
        in_lgtm("grafana-datasources.yaml", '" "tenants" .)', '" "tenants" "soev|enterprise-.*")'),
        number=9,
    ),
    edited(
        "tenant-that-grafana-does-not-show",
        "no data sources for single tenants",
        "deployment.every-tenant-is-known-everywhere",
        r"tempo-soev is missing in Grafana's data sources",
        in_lgtm("grafana-datasources.yaml", "{{- range .Values.tenants }}", "{{- range list }}"),
        number=10,
    ),
    edited(
        "link-to-a-source-that-is-not-there",
        "Tempo's service map points to a uid that nobody has",
        "deployment.references-resolve",
        r"prometheus",
        in_lgtm(
            "grafana-datasources.yaml",
            "serviceMap:\n      datasourceUid: mimir",
            "serviceMap:\n      datasourceUid: prometheus",
        ),
        number=10,
    ),
    edited(
        "viewer-chooses-the-tenant",
        "data sources without X-Scope-OrgID pass on a viewer's own",
        "deployment.data-sources-name-known-tenants",
        r"sends no X-Scope-OrgID",
        in_lgtm(
            "grafana-datasources.yaml",
            "httpHeaderName1: X-Scope-OrgID",
            "httpHeaderName1: X-Scope-Org",
        ),
    ),
    edited(
        "url-that-leads-nowhere",
        "Grafana asks a Service that does not exist",
        "deployment.references-resolve",
        r"mimir-gateway",
        in_lgtm("grafana.yaml", '(list . "gateway" 8080)', '(list . "mimir-gateway" 80)'),
        number=10,
    ),
    edited(
        "password-in-a-manifest",
        "Grafana's admin password in clear text",
        "invariants.no-secret-in-clear-text",
        r"GF_SECURITY_ADMIN_PASSWORD",
        in_lgtm(
            "grafana.yaml",
            "valueFrom:\n                secretKeyRef: "
            "{name: {{ .Values.grafana.adminSecret | quote }}, key: admin-password}",
            "value: admin",
        ),
        number=10,
    ),
)

_APPLICATION: tuple[Twin, ...] = (
    edited(
        "one-endpoint-for-three-signals",
        "over HTTP all three signals are posted to /",
        "deployment.the-application-reaches-its-alloy",
        r"metrics are posted to http://open-webui-alloy\S+:4317, which is not a path",
        in_tenant("_otel.tpl", ": {{ $otel.protocol | quote }}", ': "http"'),
        number=11,
    ),
    edited(
        "insecure-is-forgotten",
        "OTEL_EXPORTER_OTLP_INSECURE is false with http:// and gRPC",
        "deployment.the-application-reaches-its-alloy",
        r"traces are sent with TLS",
        in_tenant("_otel.tpl", ": {{ $otel.insecure | quote }}", ': "false"'),
        number=11,
    ),
    edited(
        "sampler-without-its-ratio",
        "the application samples by a ratio that nobody tells it: it sends every trace",
        "deployment.the-application-reaches-its-alloy",
        r"sampler parentbased_traceidratio has no OTEL_TRACES_SAMPLER_ARG",
        in_tenant("_otel.tpl", "OTEL_TRACES_SAMPLER_ARG:", "OTEL_SAMPLER_ARG:"),
        tenant=_otel(sampler="parentbased_traceidratio", samplerArg=0.5),
    ),
    edited(
        "replicas-in-one-series",
        "no service.instance.id: replicas write to the same series",
        "deployment.replicas-are-told-apart",
        r"soev: no service\.instance\.id",
        in_tenant("_otel.tpl", '    "service.instance.id=$(POD_NAME)"\n', ""),
        number=11,
    ),
    edited(
        "tenants-with-the-same-secrets",
        "every tenant reads the same remote keys",
        "deployment.tenants-share-nothing",
        r"soev and enterprise-a both have the remote key",
        in_tenant("secrets.yaml", '{{ printf "%s-%s" $prefix $key | quote', "open-webui-{{ $key"),
        number=14,
    ),
    edited(
        "key-that-nobody-maps",
        "the ExternalSecret lacks a key that a pod asks for: it cannot start",
        "deployment.references-resolve",
        r"rag-openai-api-key",
        in_tenant("_secrets.tpl", "openai-api-key: ragOpenaiApiKey", "openai-key: ragOpenaiApiKey"),
        number=15,
    ),
    edited(
        "rotation-that-reaches-nobody",
        "with External Secrets nothing rolls the pods when a key rotates",
        "deployment.rotation-rolls-what-may-roll",
        r"keeps the old value of open-webui-",
        in_tenant("_helpers.tpl", "secret.reloader.stakater.com/reload:", "checksum/secret:"),
        number=16,
    ),
    edited(
        "new-bytes-at-every-render",
        "something random is rendered: every upgrade changes it",
        "deployment.rendering-twice-gives-the-same",
        r"ConfigMap/open-webui-config in enterprise-a differs",
        in_tenant("_otel.tpl", ': "true"', ': "true"\nSALT: {{ randAlphaNum 8 }}'),
        number=16,
    ),
    edited(
        "another-password-than-the-gateway-knows",
        "the gateway hashes another remote key than the tenant sends",
        "deployment.a-tenant-and-the-gateway-mean-the-same-password",
        r"soev sends \['open-webui-gateway-password'\], the gateway expects",
        in_lgtm("externalsecrets.yaml", ".secretPrefix }}{{ . }}-gateway-", ".name }}{{ . }}-"),
    ),
)

_PODS: tuple[Twin, ...] = (
    edited(
        "backend-that-runs-as-root",
        "a pod that the restricted standard refuses",
        "invariants.restricted-pod-security",
        r"StatefulSet/mimir",
        in_lgtm("_helpers.tpl", "runAsNonRoot: true", "runAsNonRoot: false"),
    ),
    edited(
        "everybody-may-call-a-backend",
        "the policy of Mimir lets every pod of the cluster in",
        "deployment.only-the-gateway-reaches-a-backend",
        r"NetworkPolicy/mimir lets in \{'namespaceSelector': \{\}\}",
        in_lgtm(
            "networkpolicies.yaml",
            '{{- with include "lgtm.mimirPeers" . | trim }}\n  ingress:\n    - from:\n',
            '{{- with include "lgtm.mimirPeers" . | trim }}\n  ingress:\n    - from:\n'
            "        - namespaceSelector: {}\n",
        ),
        number=22,
    ),
    edited(
        "alloy-shut-out",
        "the gateway's policy knows the tenants' Alloys by another label",
        "deployment.references-resolve",
        r"NetworkPolicy/gateway",
        in_lgtm("networkpolicies.yaml", "app.kubernetes.io/component:", "app.kubernetes.io/name:"),
    ),
)

RENDERED: tuple[Twin, ...] = (
    *_VALUES,
    *_REGISTRY,
    *_BACKENDS,
    *_ALLOY,
    *_GRAFANA,
    *_APPLICATION,
    *_PODS,
)
