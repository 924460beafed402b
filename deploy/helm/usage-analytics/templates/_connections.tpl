{{/*
How many database sessions all pods may have at once, with one pod more of each role during a rollout. A worker has one
per lane, one that reports and one that maintains; an API pod has its pool and one for its probes.
*/}}
{{- define "ua.connections" -}}
{{- $workers := int .Values.worker.replicas -}}
{{- if include "ua.keda" . -}}
{{- $scaling := .Values.worker.autoscaling -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail "worker.autoscaling.minReplicas is above worker.autoscaling.maxReplicas" -}}
{{- end -}}
{{- if gt (int $scaling.fallbackReplicas) (int $scaling.maxReplicas) -}}
{{- fail "worker.autoscaling.fallbackReplicas is above worker.autoscaling.maxReplicas" -}}
{{- end -}}
{{- $workers = int $scaling.maxReplicas -}}
{{- end -}}
{{- $pods := int .Values.api.replicas -}}
{{- if .Values.api.autoscaling.enabled -}}
{{- if gt (int .Values.api.autoscaling.minReplicas) (int .Values.api.autoscaling.maxReplicas) -}}
{{- fail "api.autoscaling.minReplicas is above api.autoscaling.maxReplicas" -}}
{{- end -}}
{{- $pods = int .Values.api.autoscaling.maxReplicas -}}
{{- end -}}
{{- $lanes := int .Values.worker.settings.WRITER_LANES -}}
{{- $pool := int .Values.api.settings.DATABASE_POOL_SIZE -}}
{{- $reserved := int .Values.database.reservedConnections -}}
{{- $most := int .Values.database.maxConnections -}}
{{- $needed := add (mul (add $workers 1) (add $lanes 2)) (mul (add $pods 1) (add $pool 1)) $reserved -}}
{{- $sum := printf "(%d workers + 1) x (%d lanes + 2) + (%d API pods + 1) x (%d pool + 1) + %d reserved = %d of %d" $workers $lanes $pods $pool $reserved $needed $most -}}
{{- if gt (int $needed) $most -}}
{{- fail (printf "database.maxConnections is too small: %s. Lower worker.autoscaling.maxReplicas, api.autoscaling.maxReplicas, worker.settings.WRITER_LANES or api.settings.DATABASE_POOL_SIZE, or raise it with the server's max_connections" $sum) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* Values that contradict each other. */}}
{{- define "ua.check" -}}
{{- $secret := .Values.secrets.jwt.name -}}
{{- $url := .Values.api.settings.JWT_JWKS_URL -}}
{{- if and $secret $url -}}
{{- fail "secrets.jwt.name and api.settings.JWT_JWKS_URL are both set: tokens have one source of keys" -}}
{{- end -}}
{{- if not (or $secret $url) -}}
{{- fail "api.settings.JWT_JWKS_URL or secrets.jwt.name must be set: the API needs keys to prove tokens" -}}
{{- end -}}
{{- if and .Values.dev.enabled (eq .Values.database.flavor "postgres") -}}
{{- fail "database.flavor is postgres, but dev.enabled brings a TimescaleDB" -}}
{{- end -}}
{{- $held := mul (int .Values.worker.settings.PREFETCH) (int .Values.worker.settings.CONSUMER_WORKERS) -}}
{{- $lanes := int .Values.worker.settings.WRITER_LANES -}}
{{- $batch := int (.Values.worker.settings.BATCH_SIZE | default 12500) -}}
{{- if lt (int $held) (int (mul 2 $lanes $batch)) -}}
{{- fail (printf "worker.settings: PREFETCH x CONSUMER_WORKERS is %d, below twice WRITER_LANES x BATCH_SIZE (%d): batches would not fill" (int $held) (int (mul 2 $lanes $batch))) -}}
{{- end -}}
{{- end -}}
