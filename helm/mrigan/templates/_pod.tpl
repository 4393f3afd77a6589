{{/* Spec of a light pod outside workflows: the jobs' container, other arguments. Takes root, args, resources. */}}
{{- define "mrigan.pod" -}}
{{- $values := .root.Values }}
{{- $spec := include "mrigan.spec" .root | fromYaml }}
{{- $container := $spec.templateDefaults.container }}
{{- $_ := set $container "name" "main" }}
{{- $_ := set $container "image" (include "mrigan.image" (list $values.image $values.light.image)) }}
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
{{- range $name := list "nodeSelector" "tolerations" "affinity" "runtimeClassName" }}
{{- with get $values.light $name }}{{ $_ := set $pod $name . }}{{ end }}
{{- end }}
{{- toYaml $pod }}
{{- end }}
