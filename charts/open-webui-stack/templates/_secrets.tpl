{{/*
Which secret keys the enabled components need, in groups by what a rotation may roll. YAML: group to
map of key to its place in .Values.secrets. The README says which group rolls which pods, and why.
*/}}
{{- define "open-webui-stack.secretGroups" -}}
secrets:
  webui-secret-key: webuiSecretKey
  {{- if .Values.postgres.enabled }}
  postgres-password: postgresPassword
  {{- end }}
  {{- if .Values.openWebui.admin.email }}
  admin-password: adminPassword
  {{- end }}
{{- with include "open-webui-stack.providerKeys" . | trim }}
provider-secrets:
  {{- . | nindent 2 }}
{{- end }}
{{- if .Values.searxng.enabled }}
searxng-secrets:
  searxng-secret-key: searxngSecretKey
{{- end }}
{{- if and .Values.openWebui.config.telemetry.otel.enabled .Values.alloy.gateway.enabled }}
alloy-secrets:
  gateway-password: gatewayPassword
{{- end }}
{{- end }}

{{- define "open-webui-stack.providerKeys" -}}
{{- if .Values.openWebui.config.openaiApiBaseUrl }}
openai-api-key: openaiApiKey
{{- end }}
{{- if eq .Values.openWebui.config.ragEmbeddingEngine "openai" }}
rag-openai-api-key: ragOpenaiApiKey
{{- end }}
{{- if .Values.gateway.enabled }}
gateway-api-key: gatewayApiKey
{{- end }}
{{- if .Values.crawl4ai.enabled }}
crawl4ai-api-token: crawl4aiApiToken
{{- end }}
{{- range .Values.openWebui.extraSecretEnv | values | uniq | sortAlpha }}
{{ . | quote }}: {{ printf "extra.%s" . | quote }}
{{- end }}
{{- end }}

{{/*
How External Secrets writes a key into its Secret, with %q for its name. What `echo` puts behind a key is no
part of it: no HTTP header may hold it. But what the application or PostgreSQL was started with stays as it is.
*/}}
{{- define "open-webui-stack.storedAs" -}}
{{- if has . (list "webui-secret-key" "postgres-password") -}}
{{ `{{ index . %q }}` }}
{{- else -}}
{{ `{{ trim (index . %q) }}` }}
{{- end -}}
{{- end }}

{{/* Name of the Secret that holds a group. Call with (list $ "group"). */}}
{{- define "open-webui-stack.secretName" -}}
{{- $root := index . 0 -}}
{{- $root.Values.secrets.existingSecret | default (printf "%s-%s" (include "open-webui-stack.fullname" $root) (index . 1)) -}}
{{- end }}

{{/* Keys and values of a group, as the user gave them. Call with (list $ "group"). */}}
{{- define "open-webui-stack.secretData" -}}
{{- $root := index . 0 -}}
{{- $given := omit $root.Values.secrets "extra" "existingSecret" -}}
{{- range $key, $value := $root.Values.secrets.extra }}
{{- $_ := set $given (printf "extra.%s" $key) $value }}
{{- end }}
{{- range $key, $place := get (include "open-webui-stack.secretGroups" $root | fromYaml) (index . 1) }}
{{- $value := get $given $place }}
{{- if not $value }}
{{- fail (printf "secrets.%s is needed: set it, or name a Secret that has the key %s in secrets.existingSecret, or let externalSecrets.enabled fetch it" $place $key) }}
{{- end }}
{{ $key | quote }}: {{ $value | quote }}
{{- end }}
{{- end }}
