{{/* The name of all objects; those of a role have the role behind it. */}}
{{- define "ua.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that select pods: (list root role). They never change. */}}
{{- define "ua.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels: (list root role). */}}
{{- define "ua.labels" -}}
{{- $root := index . 0 -}}
{{ include "ua.selector" . }}
app.kubernetes.io/version: {{ $root.Values.image.tag | default $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: usage-analytics
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{/* An image: (list root name). */}}
{{- define "ua.image" -}}
{{- $root := index . 0 -}}
{{- $tag := $root.Values.image.tag | default $root.Chart.AppVersion -}}
{{- printf "%s/%s:%s" $root.Values.image.registry (index . 1) $tag -}}
{{- end -}}

{{/* Whether an optional part is wanted: (list root switch apiVersion). Not empty: yes. */}}
{{- define "ua.wanted" -}}
{{- $switch := toString (index . 1) -}}
{{- if eq $switch "auto" -}}
{{- if (index . 0).Capabilities.APIVersions.Has (index . 2) -}}yes{{- end -}}
{{- else if eq $switch "true" -}}yes{{- end -}}
{{- end -}}

{{- define "ua.keda" -}}
{{- include "ua.wanted" (list . .Values.worker.autoscaling.enabled "keda.sh/v1alpha1") -}}
{{- end -}}

{{/* A secret's variable: (list root variable secret). */}}
{{- define "ua.secretVariable" -}}
{{- $root := index . 0 -}}
{{- $secret := include "ua.secret" (list $root (index . 2)) | fromYaml -}}
{{- if eq $root.Values.secrets.as "files" -}}
- name: {{ index . 1 }}_FILE
  value: /run/secrets/usage-analytics/{{ index . 2 }}/{{ $secret.key }}
{{- else -}}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ $secret.name }}
      key: {{ $secret.key }}
{{- end -}}
{{- end -}}

{{/* Name and key of a secret: (list root secret). Those of the dev servers are one Secret. */}}
{{- define "ua.secret" -}}
{{- $root := index . 0 -}}
{{- if and $root.Values.dev.enabled (ne (index . 1) "jwt") -}}
name: {{ include "ua.name" $root }}-dev
key: {{ index . 1 }}
{{- else -}}
{{- toYaml (index $root.Values.secrets (index . 1)) -}}
{{- end -}}
{{- end -}}

{{/* Volumes of a pod: (list root secrets). */}}
{{- define "ua.volumes" -}}
{{- $root := index . 0 -}}
{{- if eq $root.Values.secrets.as "files" }}
{{- range index . 1 }}
{{- $secret := include "ua.secret" (list $root .) | fromYaml }}
- name: secret-{{ . }}
  secret:
    secretName: {{ $secret.name }}
    defaultMode: 0440
    items: [{ key: {{ $secret.key }}, path: {{ $secret.key }} }]
{{- end }}
{{- end }}
{{- with $root.Values.caBundle.configMap }}
- name: ca
  configMap:
    name: {{ . }}
    items: [{ key: {{ $root.Values.caBundle.key }}, path: ca.pem }]
{{- end }}
{{- end -}}

{{/* Where they are mounted: (list root secrets). */}}
{{- define "ua.mounts" -}}
{{- $root := index . 0 -}}
{{- if eq $root.Values.secrets.as "files" }}
{{- range index . 1 }}
- name: secret-{{ . }}
  mountPath: /run/secrets/usage-analytics/{{ . }}
  readOnly: true
{{- end }}
{{- end }}
{{- if $root.Values.caBundle.configMap }}
- name: ca
  mountPath: /etc/usage-analytics/ca
  readOnly: true
{{- end }}
{{- end -}}

{{/* Settings as variables: (list settings). Numbers are written in full. */}}
{{- define "ua.settings" -}}
{{- range $name, $value := . }}
{{- if ne (toString $value) "" }}
- name: {{ $name }}
  value: {{ if kindIs "float64" $value }}{{ int64 $value | quote }}{{ else }}{{ toString $value | quote }}{{ end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What every pod says about itself: root. */}}
{{- define "ua.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "ua.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end -}}

{{/* Probes: on the admin port. A pod that waits for its database is started and alive. */}}
{{- define "ua.probes" -}}
startupProbe:
  httpGet: { path: /health, port: admin }
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: { path: /health, port: admin }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /ready, port: admin }
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* Pods of a role over nodes and zones: (list root role). */}}
{{- define "ua.spread" -}}
topologySpreadConstraints:
  {{- range tuple "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "ua.selector" $ | nindent 8 }}
  {{- end }}
{{- end -}}
