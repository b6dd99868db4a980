{{/*
What the application reads about telemetry, as ConfigMap data. Its names for single signals are its
own (OTEL_METRICS_EXPORTER_OTLP_ENDPOINT, …), and so is their meaning: over HTTP it uses an endpoint
as it is, path and all, and over gRPC it believes INSECURE rather than the endpoint's scheme.
*/}}
{{- define "open-webui-stack.otel.config" -}}
{{- $otel := .Values.openWebui.config.telemetry.otel -}}
{{- if $otel.enabled }}
{{- $port := ternary "otlp-grpc" "otlp-http" (eq $otel.protocol "grpc") }}
{{- $endpoint := $otel.endpoint | default (printf "http://%s" (include "open-webui-stack.address" (list . "alloy" $port))) }}
ENABLE_OTEL: "true"
ENABLE_OTEL_TRACES: {{ $otel.traces | quote }}
ENABLE_OTEL_METRICS: {{ $otel.metrics | quote }}
ENABLE_OTEL_LOGS: {{ $otel.logs | quote }}
OTEL_OTLP_SPAN_EXPORTER: {{ $otel.protocol | quote }}
{{- if eq $otel.protocol "http" }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ printf "%s/v1/traces" $endpoint | quote }}
OTEL_METRICS_EXPORTER_OTLP_ENDPOINT: {{ printf "%s/v1/metrics" $endpoint | quote }}
OTEL_LOGS_EXPORTER_OTLP_ENDPOINT: {{ printf "%s/v1/logs" $endpoint | quote }}
{{- else }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ $endpoint | quote }}
{{- end }}
OTEL_EXPORTER_OTLP_INSECURE: {{ $otel.insecure | quote }}
OTEL_SERVICE_NAME: {{ $otel.serviceName | quote }}
OTEL_TRACES_SAMPLER: {{ $otel.sampler | quote }}
{{- if ne (toString $otel.samplerArg) "" }}
OTEL_TRACES_SAMPLER_ARG: {{ $otel.samplerArg | quote }}
{{- end }}
# So many lines or spans at once: with a prompt of 100 KB in each, they fit what a receiver takes.
OTEL_BLRP_MAX_EXPORT_BATCH_SIZE: "32"
OTEL_BSP_MAX_EXPORT_BATCH_SIZE: "32"
OTEL_METRICS_EXPORT_INTERVAL_MILLIS: {{ $otel.metricsExportIntervalMillis | int | quote }}
OTEL_PYTHON_FASTAPI_EXCLUDED_URLS: {{ $otel.excludedUrls | quote }}
# Before 0.12 each log line is sent twice without it.
OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION: "false"
{{- else }}
ENABLE_OTEL: "false"
{{- end }}
{{- end }}

{{/*
Attributes of the application's resource, in the pod's env because they name the pod: without an
instance of their own, replicas would write to one and the same series.
*/}}
{{- define "open-webui-stack.otel.env" -}}
{{- $otel := .Values.openWebui.config.telemetry.otel -}}
{{- if $otel.enabled }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ list
    "service.namespace=$(POD_NAMESPACE)"
    "service.instance.id=$(POD_NAME)"
    "k8s.namespace.name=$(POD_NAMESPACE)"
    "k8s.pod.name=$(POD_NAME)"
    (printf "tenant.id=%s" (include "open-webui-stack.tenant" .))
    $otel.resourceAttributes
    | compact | join "," | quote }}
{{- end }}
{{- end }}
