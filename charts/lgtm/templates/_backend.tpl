{{/*
The one workload that Mimir, Loki and Tempo are: a single replica with its volume, its Service and
its configuration. Call with a dict:
  root    the root context
  name    mimir, loki or tempo: the name of everything, and the key of its values
  ports   list of {name, port}: each is a container port, a Service port and the variable NAME_PORT
  env     list of further {name, value}
  grace   seconds to end in, where two minutes are of no use
*/}}
{{- define "lgtm.backend" -}}
{{- $root := .root -}}
{{- $name := .name -}}
{{- $values := index $root.Values $name -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "lgtm.metadata" (list $root $name $name) | nindent 2 }}
automountServiceAccountToken: false
---
apiVersion: v1
kind: Service
metadata:
  {{- include "lgtm.metadata" (list $root $name $name) | nindent 2 }}
spec:
  type: ClusterIP
  selector:
    {{- include "lgtm.selectorLabels" (list $root $name) | nindent 4 }}
  ports:
    {{- range .ports }}
    - name: {{ .name }}
      port: {{ .port }}
      targetPort: {{ .name }}
      protocol: TCP
    {{- end }}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "lgtm.metadata" (list $root $name $name) | nindent 2 }}
spec:
  replicas: 1
  serviceName: {{ $name }}
  selector:
    matchLabels:
      {{- include "lgtm.selectorLabels" (list $root $name) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "lgtm.selectorLabels" (list $root $name) | nindent 8 }}
      annotations:
        checksum/config: {{ include (printf "lgtm.%s.config" $name) $root | sha256sum }}
    spec:
      serviceAccountName: {{ $name }}
      {{- include "lgtm.podDefaults" (list $root 10001) | nindent 6 }}
      # Time to write what is in memory.
      terminationGracePeriodSeconds: {{ .grace | default 120 }}
      containers:
        - name: {{ $name }}
          {{- include "lgtm.image" $values.image | nindent 10 }}
          args:
            - -config.file=$(CONFIG_DIR)/{{ $name }}.yaml
            - -config.expand-env=true
          env:
            - name: CONFIG_DIR
              value: /etc/{{ $name }}
            - name: DATA_DIR
              value: /data
            - name: LISTEN_ADDRESS
              value: 0.0.0.0
            - name: GOMEMLIMIT
              value: {{ include "lgtm.goMemory" $values.resources.limits.memory | quote }}
            # The rings inside the process talk to each other: never from outside.
            - name: GRPC_PORT
              value: "9095"
            {{- range .ports }}
            - name: {{ .name | upper | replace "-" "_" }}_PORT
              value: {{ .port | quote }}
            {{- end }}
            {{- range .env }}
            - name: {{ .name }}
              value: {{ .value | quote }}
            {{- end }}
          ports:
            {{- range .ports }}
            - name: {{ .name }}
              containerPort: {{ .port }}
              protocol: TCP
            {{- end }}
          # A long replay of the write-ahead log is no reason to kill it.
          startupProbe:
            httpGet: {path: /ready, port: http}
            periodSeconds: 2
            failureThreshold: 150
          readinessProbe:
            httpGet: {path: /ready, port: http}
            periodSeconds: 5
          livenessProbe:
            tcpSocket: {port: http}
            periodSeconds: 10
            failureThreshold: 6
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          {{- include "lgtm.containerSecurity" (list) | nindent 10 }}
          volumeMounts:
            - name: config
              mountPath: /etc/{{ $name }}
              readOnly: true
            - name: data
              mountPath: /data
            - name: tmp
              mountPath: /tmp
      volumes:
        - name: config
          configMap:
            name: {{ $name }}
        - name: tmp
          emptyDir: {}
  persistentVolumeClaimRetentionPolicy:
    whenDeleted: Retain
    whenScaled: Retain
  volumeClaimTemplates:
    - metadata:
        name: data
        labels:
          {{- include "lgtm.selectorLabels" (list $root $name) | nindent 10 }}
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $values.persistence.storageClass }}
        storageClassName: {{ . | quote }}
        {{- end }}
        resources:
          requests:
            storage: {{ $values.persistence.size }}
{{- end }}
