{{/* Labels of every object: the workflow files' own and Helm's. */}}
{{- define "mrigan.labels" -}}
app.kubernetes.io/name: mrigan
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "mrigan.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default .Values.name }}
{{- end }}

{{- define "mrigan.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end -}}
{{- end -}}
{{- end }}

{{/* A scalar as a parameter's value, which is a string: toString would write 1000000 as 1e+06. */}}
{{- define "mrigan.string" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end }}

{{/* Stops at a parameter that the workflow does not have. Takes values (map), known (names), path (where it stands). */}}
{{- define "mrigan.check-parameters" -}}
{{- range $name := keys .values | sortAlpha }}
{{- if not (has $name $.known) }}
{{- fail (printf "%s.%s: no such setting; there are: %s" $.path $name (join ", " $.known)) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Namespace, labels and annotations of what the monitoring takes up. Takes root, site (labels, annotations). */}}
{{- define "mrigan.monitored" -}}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- toYaml (merge (include "mrigan.labels" .root | fromYaml) .site.labels) | nindent 2 }}
{{- with .site.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
