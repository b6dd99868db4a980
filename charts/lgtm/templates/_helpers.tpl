{{/* The release and component that an object belongs to. Call with (list $ "component"). */}}
{{- define "lgtm.selectorLabels" -}}
app.kubernetes.io/name: lgtm
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "lgtm.labels" -}}
{{- $root := index . 0 -}}
{{ include "lgtm.selectorLabels" . }}
app.kubernetes.io/part-of: observability
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{/* Name, namespace and labels of an object. Call with (list $ "component" "name"). */}}
{{- define "lgtm.metadata" -}}
name: {{ index . 2 | quote }}
namespace: {{ (index . 0).Release.Namespace | quote }}
labels:
  {{- include "lgtm.labels" . | nindent 2 }}
{{- end }}

{{- define "lgtm.image" -}}
image: {{ printf "%s:%s" .repository .tag | quote }}
imagePullPolicy: {{ .pullPolicy }}
{{- end }}

{{/* Bytes of a share of a quantity of memory. Call with (list QUANTITY SHARE). */}}
{{- define "lgtm.memory" -}}
{{- $units := dict "" 1 "M" 1e6 "G" 1e9 "Mi" 1048576 "Gi" 1073741824 -}}
{{- $text := ternary (index . 0 | toString) (index . 0 | int64 | toString) (kindIs "string" (index . 0)) -}}
{{- $number := regexFind "^[0-9.]+" $text | float64 -}}
{{- mulf $number (get $units (regexFind "[A-Za-z]*$" $text)) (index . 1) | int64 -}}
{{- end }}

{{/*
The most that a backend unpacks of one request [bytes]: Alloy's batches are a third of it. In memory a
request takes up to 600 times as much, and brackets within brackets end a program when they are a
million deep: some 10 KB that unpack to the default of 100 MB would end Mimir for everybody.
*/}}
{{- define "lgtm.largestRequest" -}}
1048576
{{- end }}

{{/* Go's collector knows nothing of the container's limit, and would let garbage grow beyond it. */}}
{{- define "lgtm.goMemory" -}}
{{- include "lgtm.memory" (list . 0.9) -}}
{{- end }}

{{/* What every pod of the chart has. Call with (list $ uid), and true where it asks the Kubernetes API. */}}
{{- define "lgtm.podDefaults" -}}
{{- $root := index . 0 -}}
automountServiceAccountToken: {{ has true . }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ index . 1 }}
  runAsGroup: {{ index . 1 }}
  fsGroup: {{ index . 1 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "lgtm.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    {{- with . }}
    add: {{ toJson . }}
    {{- end }}
{{- end }}

{{/* URL of a Service of this chart. Call with (list $ "service" port). */}}
{{- define "lgtm.url" -}}
http://{{ index . 1 }}.{{ (index . 0).Release.Namespace }}.svc:{{ index . 2 }}
{{- end }}

{{/* URL of a backend: this chart's own, or the one elsewhere. Call with the root context. */}}
{{- define "lgtm.mimirUrl" -}}
{{ .Values.mimir.externalUrl | default (include "lgtm.url" (list . "mimir" 9009)) }}
{{- end }}

{{- define "lgtm.lokiUrl" -}}
{{ .Values.loki.externalUrl | default (include "lgtm.url" (list . "loki" 3100)) }}
{{- end }}

{{- define "lgtm.tempoUrl" -}}
{{ .Values.tempo.externalUrl | default (include "lgtm.url" (list . "tempo" 3200)) }}
{{- end }}

{{- define "lgtm.tempoOtlpUrl" -}}
{{ .Values.tempo.externalOtlpUrl | default (include "lgtm.url" (list . "tempo" 4318)) }}
{{- end }}

{{/* All tenants, as the backends' federation wants them: an explicit list. There is no pattern. */}}
{{- define "lgtm.allTenants" -}}
{{- $names := list -}}
{{- range .Values.tenants }}{{ $names = append $names .name }}{{ end -}}
{{- join "|" $names -}}
{{- end }}

{{/* The tenant, with the defaults where it says nothing. Call with (list $ tenant); returns YAML. */}}
{{- define "lgtm.tenant" -}}
{{- toYaml (mergeOverwrite (deepCopy (index . 0).Values.defaults) (index . 1)) -}}
{{- end }}

{{/* Who writes metrics and logs: the tenants, and the monitor as one of its own. Returns a YAML list. */}}
{{- define "lgtm.writers" -}}
{{- $writers := .Values.tenants -}}
{{- if .Values.monitor.enabled -}}
{{- $writers = append $writers (dict "name" (include "lgtm.monitor.tenant" .) "limits" .Values.monitor.limits) -}}
{{- end -}}
{{- toYaml $writers -}}
{{- end }}

{{/* The largest figure that a limit has, of the defaults and of all tenants. Call with (list $ "signal" "limit"). */}}
{{- define "lgtm.largest" -}}
{{- $root := index . 0 -}}
{{- $largest := 0.0 -}}
{{- range prepend (include "lgtm.writers" $root | fromYamlArray) (dict) -}}
{{- $tenant := include "lgtm.tenant" (list $root .) | fromYaml -}}
{{- $largest = get (get $tenant.limits (index $ 1)) (index $ 2) | float64 | maxf $largest -}}
{{- end -}}
{{- $largest -}}
{{- end }}

{{/* How long anything is kept, and an hour: ranges are rounded. */}}
{{- define "lgtm.longestRetention" -}}
{{- $minutes := 0 -}}
{{- range prepend .Values.tenants (dict) -}}
{{- $text := (include "lgtm.tenant" (list $ .) | fromYaml).retention -}}
{{- $hours := regexFind "^[0-9]+h" $text | trimSuffix "h" | default "0" | int64 -}}
{{- $minutes = add (mul 60 $hours) (regexFind "[0-9]+m" $text | trimSuffix "m" | default "0" | int64) | max $minutes -}}
{{- end -}}
{{- add 60 $minutes -}}m
{{- end }}

{{/* Whether the canary runs: without two tenants, or a gateway that asks who they are, it has nothing to prove. */}}
{{- define "lgtm.canary" -}}
{{- if and .Values.canary.enabled .Values.gateway.enabled (gt (len .Values.tenants) 1) }}true{{ end -}}
{{- end }}

{{/* Each tenant's password, as the data of an ExternalSecret. */}}
{{- define "lgtm.tenantPasswords" -}}
{{- range .Values.tenants }}
- secretKey: {{ .name | quote }}
  remoteRef: {key: {{ .secretPrefix }}-gateway-password}
{{- end }}
{{- end }}
