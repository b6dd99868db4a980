{{- define "name" }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}

{{- define "selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "metadata" -}}
name: {{ include "name" (index . 0) }}{{ with index . 2 }}-{{ . }}{{ end }}
labels:
  helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version }}
  app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
  {{- include "selector" . | nindent 2 }}
{{- end }}

{{- define "pod" -}}
metadata:
  labels:
    app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
    {{- include "selector" . | nindent 4 }}
{{- end }}

{{- define "service" }}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "metadata" (list (index . 0) (index . 1) (index . 1)) | nindent 2 }}
spec:
  selector:
    {{- include "selector" . | nindent 4 }}
  ports:
    {{- range $name, $port := index . 2 }}
    - {name: {{ $name }}, port: {{ $port }}, targetPort: {{ $name }}}
    {{- end }}
{{- end }}
