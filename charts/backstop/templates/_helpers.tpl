{{/* Name of the operator's objects: the release's, with `backstop` in it. */}}
{{- define "backstop.name" -}}
{{- if contains "backstop" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}-backstop{{ end }}
{{- end }}

{{/* What the Deployment selects its pods by; never changes. */}}
{{- define "backstop.selector" -}}
app.kubernetes.io/name: backstop
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "backstop.labels" -}}
{{ include "backstop.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "backstop.image" -}}
{{ required "image.repository is required: build the image from the Dockerfile, push it, and name it here" .Values.image.repository }}
{{- with .Values.image.tag | default (ternary "" .Chart.AppVersion (not (empty .Values.image.digest))) }}:{{ . }}{{ end }}
{{- with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* Annotations of the operator's pod: the author's own before the chart's, each key once. */}}
{{- define "backstop.podAnnotations" -}}
{{- $scraped := dict "prometheus.io/scrape" "true" "prometheus.io/port" "8080" "prometheus.io/path" "/metrics" }}
{{- /* The configuration is read once, at the start: another one restarts the operator. */}}
{{- $checksum := dict "checksum/config" (include (print $.Template.BasePath "/configmap.yaml") . | sha256sum) }}
{{- mergeOverwrite $scraped (.Values.podAnnotations | default dict) $checksum | toYaml }}
{{- end }}

{{/* The keys of Secrets that metrics sources name, each once. One that is not there stops nothing but its source. */}}
{{- define "backstop.secretFiles" -}}
{{- $files := dict }}
{{- range .Values.metrics.sources }}
{{- range .headersFrom }}{{- $_ := set $files (printf "%s/%s" .secretRef.name .secretRef.key) .secretRef }}{{- end }}
{{- range $ref := pick (.tls | default dict) "caRef" "certificateRef" "keyRef" }}{{- $_ := set $files (printf "%s/%s" $ref.name $ref.key) $ref }}{{- end }}
{{- end }}
{{- range $path, $ref := $files }}
- secret:
    name: {{ $ref.name | quote }}
    optional: true
    items:
      - {key: {{ $ref.key | quote }}, path: {{ $path | quote }}}
{{- end }}
{{- end }}

{{/* Annotations of what is there for the end of an uninstall alone; takes the weight. */}}
{{- define "backstop.hook" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* What it takes to take the finalizers off. */}}
{{- define "backstop.letGoRules" -}}
- apiGroups: [backstop.dev]
  resources: [fallbackpolicies]
  verbs: [list, patch]
{{- end }}

{{/* All that the operator may do, where policies live. It reads no Secrets by the API; of policies it changes the status, and its own finalizer. */}}
{{- define "backstop.rules" -}}
- apiGroups: [backstop.dev]
  resources: [fallbackpolicies, promptversions]
  verbs: [get, list, watch]
- apiGroups: [backstop.dev]
  resources: [fallbackpolicies/status, promptversions/status]
  verbs: [patch]
# The finalizer while a rollout runs.
- apiGroups: [backstop.dev]
  resources: [fallbackpolicies]
  verbs: [patch]
# Written once; the oldest go. Their review is a person's: the operator changes none.
- apiGroups: [backstop.dev]
  resources: [rolloutreports]
  verbs: [list, create, delete]
# Revision records, traffic objects, and what policies refer to. `get` and `watch` are also what it grants to the gateways.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
# Whether callers' connections have followed the Service of a workload that is not our gateway.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, create, patch, delete]
# The gateways' identity. These go with their policy; the operator never deletes them.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, list, create, patch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Probes, and the last lines of those that failed.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}
