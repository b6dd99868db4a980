{{/*
Names, labels and the parts that all workloads share. A helper about one component is called with
(list $ "component"); the components are open-webui, postgres, weaviate, searxng, alloy, gateway,
crawl4ai and reranker.
*/}}

{{/*
Prefix of all names: the release's name where it contains or is contained in the chart's (a release
open-webui makes Deployment open-webui), else release and chart. Under another name (alias) a parent
may have several of the chart, and two of them are alike to one release: there it is always both.
At most 43 characters, so that every name with its suffix fits 63 and a StatefulSet's 52; a longer
one ends with a hash of itself.
*/}}
{{- define "open-webui-stack.fullname" -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- $chart := .Chart.Name | lower | replace "_" "-" -}}
{{- $alike := eq $release $chart -}}
{{- if eq $chart "open-webui-stack" -}}{{ $alike = or (contains $release $chart) (contains $chart $release) }}{{- end -}}
{{- $name := .Values.fullnameOverride | default (ternary $release (printf "%s-%s" $release $chart) $alike) -}}
{{- if gt (len $name) 43 -}}
{{- printf "%s-%s" (trunc 34 $name | trimSuffix "-") (sha256sum $name | trunc 8) -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end }}

{{/* Name of a component's objects: the application has the release's own, or one that it is given. */}}
{{- define "open-webui-stack.name" -}}
{{- $fullname := include "open-webui-stack.fullname" (index . 0) -}}
{{- if eq (index . 1) "open-webui" -}}
{{- (index . 0).Values.openWebui.nameOverride | default $fullname -}}
{{- else -}}
{{- printf "%s-%s" $fullname (index . 1) -}}
{{- end -}}
{{- end }}

{{/* The tenant: this is the one place that reads it. */}}
{{- define "open-webui-stack.tenant" -}}
{{- .Values.openWebui.config.telemetry.otel.tenantId -}}
{{- end }}

{{- define "open-webui-stack.selectorLabels" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name | quote }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "open-webui-stack.labels" -}}
{{- $root := index . 0 -}}
{{ include "open-webui-stack.selectorLabels" . }}
app.kubernetes.io/part-of: open-webui
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | quote }}
tenant.id: {{ include "open-webui-stack.tenant" $root | quote }}
{{- end }}

{{/* Name, namespace and labels of an object. Call with (list $ "component") or (list $ "component" "name"). */}}
{{- define "open-webui-stack.metadata" -}}
name: {{ if gt (len .) 2 }}{{ index . 2 | quote }}{{ else }}{{ include "open-webui-stack.name" . | quote }}{{ end }}
namespace: {{ (index . 0).Release.Namespace | quote }}
labels:
  {{- include "open-webui-stack.labels" . | nindent 2 }}
{{- end }}

{{/* The components of this release, as a YAML map: {items: [{name, values key}]}. */}}
{{- define "open-webui-stack.components" -}}
items:
  - {name: open-webui, key: openWebui}
  {{- range list "postgres" "weaviate" "searxng" "gateway" "crawl4ai" "reranker" }}
  {{- if (index $.Values .).enabled }}
  - {name: {{ . }}, key: {{ . }}}
  {{- end }}
  {{- end }}
  {{- if .Values.openWebui.config.telemetry.otel.enabled }}
  - {name: alloy, key: alloy}
  {{- end }}
{{- end }}

{{/* Ports of a component's container and Service, as a YAML map of name to number. */}}
{{- define "open-webui-stack.ports" -}}
{{- $ports := dict
  "open-webui" (dict "http" 8080)
  "postgres" (dict "postgres" 5432)
  "weaviate" (dict "http" 8080 "grpc" 50051)
  "searxng" (dict "http" 8080)
  "gateway" (dict "http" 8000)
  "crawl4ai" (dict "http" 11235)
  "reranker" (dict "http" 8000)
  "alloy" (dict "otlp-grpc" 4317 "otlp-http" 4318 "http" 12345)
-}}
{{- get $ports . | default dict | toYaml -}}
{{- end }}

{{/* host:port of a component's Service. Call with (list $ "component" "port name"). */}}
{{- define "open-webui-stack.address" -}}
{{- $port := get (include "open-webui-stack.ports" (index . 1) | fromYaml) (index . 2) | int -}}
{{- printf "%s.%s.svc:%d" (include "open-webui-stack.name" .) (index . 0).Release.Namespace $port -}}
{{- end }}

{{/*
Pod of a component, to the restricted security standard. Call with a dict:
  root, component
  as           name in the labels and of the container, if not the component's
  container    YAML of what is special about the container (env, probes, volumeMounts, …)
  volumes      YAML list of volumes
  checksums    map of annotation name to text: a change of the text rolls the pods
  secrets      groups of the Secret (see _secrets.tpl) whose rotation rolls the pods
  serviceAccount      name of the ServiceAccount, if not the release's
  serviceAccountToken true where the pod talks to the Kubernetes API
  spec         YAML of further fields of the pod
*/}}
{{- define "open-webui-stack.podTemplate" -}}
{{- $root := .root -}}
{{- $key := ternary "openWebui" .component (eq .component "open-webui") -}}
{{- $values := index $root.Values $key -}}
{{- $as := .as | default .component -}}
metadata:
  # Not the chart's version: it would roll every pod at each release of the chart.
  labels:
    {{- include "open-webui-stack.selectorLabels" (list $root $as) | nindent 4 }}
    tenant.id: {{ include "open-webui-stack.tenant" $root | quote }}
  {{- with include "open-webui-stack.podAnnotations" . | trim }}
  annotations:
    {{- . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ .serviceAccount | default (include "open-webui-stack.fullname" $root) | quote }}
  automountServiceAccountToken: {{ .serviceAccountToken | default false }}
  # Variables of every Service in the namespace would collide with the programs' own.
  enableServiceLinks: false
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ $values.securityContext.runAsUser }}
    runAsGroup: {{ $values.securityContext.runAsGroup }}
    fsGroup: {{ $values.securityContext.fsGroup }}
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- with $root.Values.global.imagePullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ (kindIs "string" . | ternary (dict "name" .) .).name | quote }}
    {{- end }}
  {{- end }}
  {{- with $root.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and (eq $as .component) (gt (int $values.replicaCount) 1) }}
  # A node that goes takes one of them, where there is another node.
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "open-webui-stack.selectorLabels" (list $root $as) | nindent 10 }}
  {{- end }}
  {{- with .spec }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: {{ $as }}
      image: {{ printf "%s:%s" $values.image.repository $values.image.tag | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: {{ $values.securityContext.readOnlyRootFilesystem }}
        capabilities:
          drop: [ALL]
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      {{- with include "open-webui-stack.ports" $as | fromYaml }}
      ports:
        {{- range $name, $port := . }}
        - name: {{ $name }}
          containerPort: {{ $port | int }}
          protocol: TCP
        {{- end }}
      {{- end }}
      {{- .container | nindent 6 }}
  volumes:
    {{- .volumes | nindent 4 }}
{{- end }}

{{/* What rolls the pods. With External Secrets the values are not ours to hash: Reloader watches them. */}}
{{- define "open-webui-stack.podAnnotations" -}}
{{- range $name, $text := .checksums }}
checksum/{{ $name }}: {{ sha256sum $text | quote }}
{{- end }}
{{- with .secrets }}
{{- $groups := include "open-webui-stack.secretGroups" $.root | fromYaml }}
{{- range . }}
{{- if hasKey $groups . }}
{{- if $.root.Values.externalSecrets.enabled }}
secret.reloader.stakater.com/reload: {{ include "open-webui-stack.secretName" (list $.root .) | quote }}
{{- else if not $.root.Values.secrets.existingSecret }}
checksum/{{ . }}: {{ include "open-webui-stack.secretData" (list $.root .) | sha256sum | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
Deployment or StatefulSet of a component. Call with the dict of open-webui-stack.podTemplate, and:
  kind         Deployment or StatefulSet
  workload     YAML of further fields of the workload (strategy, volumeClaimTemplates, …)
*/}}
{{- define "open-webui-stack.workload" -}}
{{- $key := ternary "openWebui" .component (eq .component "open-webui") -}}
apiVersion: apps/v1
kind: {{ .kind }}
metadata:
  {{- include "open-webui-stack.metadata" (list .root .component) | nindent 2 }}
spec:
  replicas: {{ (index .root.Values $key).replicaCount | default 1 }}
  {{- if or (eq .kind "Deployment") .root.Values.global.claimTemplateLabels }}
  revisionHistoryLimit: 3
  {{- end }}
  selector:
    matchLabels:
      {{- include "open-webui-stack.selectorLabels" (list .root .component) | nindent 6 }}
  {{- with .workload }}
  {{- . | nindent 2 }}
  {{- end }}
  template:
    {{- include "open-webui-stack.podTemplate" . | nindent 4 }}
{{- end }}

{{/*
Of a Deployment whose start may take ten minutes, after the image is pulled and the volume is there. By
default it has failed after ten in all: Flux then rolls it back at once, while it migrates its database.
*/}}
{{- define "open-webui-stack.slowStart" -}}
progressDeadlineSeconds: 900
{{- end }}

{{/* StorageClass of a volume, if not the cluster's default. Call with (list $ persistence). */}}
{{- define "open-webui-stack.storageClass" -}}
{{- with (index . 1).storageClass | default (index . 0).Values.global.storageClass }}
storageClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{/* volumeClaimTemplates of a data store, kept whatever happens to its StatefulSet. Call with (list $ "component"). */}}
{{- define "open-webui-stack.dataVolume" -}}
{{- $persistence := (index (index . 0).Values (index . 1)).persistence -}}
serviceName: {{ include "open-webui-stack.name" . | quote }}
persistentVolumeClaimRetentionPolicy:
  whenDeleted: Retain
  whenScaled: Retain
volumeClaimTemplates:
  - metadata:
      name: data
      {{- if (index . 0).Values.global.claimTemplateLabels }}
      labels:
        {{- include "open-webui-stack.selectorLabels" . | nindent 8 }}
      {{- end }}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with include "open-webui-stack.storageClass" (list (index . 0) $persistence) | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      resources:
        requests:
          storage: {{ $persistence.size }}
{{- end }}

{{/* A variable from the tenant's Secret. Call with (list $ "VARIABLE" "group" "key"). */}}
{{- define "open-webui-stack.secretEnv" -}}
- name: {{ index . 1 | quote }}
  valueFrom:
    secretKeyRef:
      name: {{ include "open-webui-stack.secretName" (list (index . 0) (index . 2)) | quote }}
      key: {{ index . 3 | quote }}
{{- end }}
