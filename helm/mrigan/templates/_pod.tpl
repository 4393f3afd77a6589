{{/* Spec of a pod outside workflows: the jobs' container with other arguments. Takes root, args, resources. */}}
{{- define "mrigan.pod" -}}
{{- $values := .root.Values }}
{{- $spec := include "mrigan.spec" .root | fromYaml }}
{{- $container := $spec.templateDefaults.container }}
{{- $_ := set $container "name" "main" }}
{{- $_ := set $container "args" .args }}
{{- $_ := set $container "resources" .resources }}
{{- $pod := dict
  "serviceAccountName" $spec.serviceAccountName
  "automountServiceAccountToken" false
  "enableServiceLinks" false
  "securityContext" $spec.securityContext
  "containers" (list $container)
  "volumes" $spec.volumes }}
{{- with $values.imagePullSecrets }}{{ $_ := set $pod "imagePullSecrets" . }}{{ end }}
{{- with $values.priorityClassName }}{{ $_ := set $pod "priorityClassName" . }}{{ end }}
{{- with $values.light.nodeSelector }}{{ $_ := set $pod "nodeSelector" . }}{{ end }}
{{- with $values.light.tolerations }}{{ $_ := set $pod "tolerations" . }}{{ end }}
{{- toYaml $pod }}
{{- end }}
