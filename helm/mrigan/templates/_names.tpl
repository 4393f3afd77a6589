{{/* Labels of every object: those of the workflow files, and Helm's. */}}
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

{{/* The address of an image. Takes a list: the values `image`, and a map of those that differ, or an empty one. */}}
{{- define "mrigan.image" -}}
{{- $image := first . }}
{{- $other := last . }}
{{- /* Another tag is not that of the digest. */}}
{{- if $other.tag }}{{ $image = omit $image "digest" }}{{ end }}
{{- with merge dict $other $image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end -}}
{{- end -}}
{{- end }}

{{/* A scalar as the value of a parameter, which is a string. toString would write 1000000 as 1e+06. */}}
{{- define "mrigan.string" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end }}

{{/* Fails for an unknown parameter, or a boolean. Takes values (map), known (names), path (of the values). */}}
{{- define "mrigan.check-parameters" -}}
{{- range $name := keys .values | sortAlpha }}
{{- if kindIs "bool" (get $.values $name) }}
{{- fail (printf "%s.%s: YAML reads no, off and yes without quotes as false and true: write \"no\"" $.path $name) }}
{{- end }}
{{- if not (has $name $.known) }}
{{- fail (printf "%s.%s: no such setting; there are: %s" $.path $name (join ", " $.known)) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Metadata of an object. Takes a list: root, name, and a map that may have labels and annotations. */}}
{{- define "mrigan.metadata" -}}
{{- $root := first . -}}
name: {{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- toYaml (merge (include "mrigan.labels" $root | fromYaml) ((last .).labels | default dict)) | nindent 2 }}
{{- with (last .).annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Binding of a Role to subjects, by default to the account of this name. Takes a list: root, name, subjects. */}}
{{- define "mrigan.binding" -}}
{{- $root := first . }}
{{- $name := index . 1 -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "mrigan.metadata" (list $root $name dict) | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name }}}
subjects:
  {{- with last . }}
  {{- toYaml . | nindent 2 }}
  {{- else }}
  - {kind: ServiceAccount, name: {{ $name }}, namespace: {{ $root.Release.Namespace }}}
  {{- end }}
{{- end }}
