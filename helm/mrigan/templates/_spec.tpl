{{/* The environment variables with which a container connects to S3 at this site: of jobs and of Argo. A list. */}}
{{- define "mrigan.env" -}}
{{- $proxy := .Values.proxy }}
{{- /* $(KUBERNETES_SERVICE_HOST): the API server, to which Argo reports results without the proxy. */}}
{{- $none := concat (list "$(KUBERNETES_SERVICE_HOST)" "localhost" "127.0.0.1" ".svc") (compact (list $proxy.none)) }}
{{- $ca := ternary "/etc/mrigan/ca/ca.crt" "" (not (empty .Values.caBundle.configMap)) }}
{{- $env := list }}
{{- /* Not AWS_ENDPOINT_URL: requests for a cloud identity (STS) would go to the S3 server too. */}}
{{- /* The jobs (boto3) read AWS_DEFAULT_REGION, Argo's uploads AWS_REGION. */}}
{{- range list
  (list .Values.s3.endpoint "AWS_ENDPOINT_URL_S3")
  (list .Values.s3.region "AWS_DEFAULT_REGION" "AWS_REGION")
  (list $ca "AWS_CA_BUNDLE" "REQUESTS_CA_BUNDLE" "SSL_CERT_FILE")
  (list $proxy.http "HTTP_PROXY")
  (list $proxy.https "HTTPS_PROXY")
  (list (ternary (join "," $none) "" (not (empty (or $proxy.http $proxy.https)))) "NO_PROXY") }}
{{- $value := first . }}
{{- if $value }}{{ range rest . }}{{ $env = append $env (dict "name" . "value" $value) }}{{ end }}{{ end }}
{{- end }}
{{- toYaml $env }}
{{- end }}

{{/* Adds the site's environment, credentials and authorities to a container, in place. Takes root, container. */}}
{{- define "mrigan.reach" -}}
{{- $container := .container }}
{{- with include "mrigan.env" .root | fromYamlArray }}
{{- $_ := set $container "env" (concat ($container.env | default list) .) }}
{{- end }}
{{- with .root.Values.s3.existingSecret }}
{{- range $container.envFrom }}{{ $_ := set .secretRef "name" $.root.Values.s3.existingSecret }}{{ end }}
{{- else }}
{{- $_ := unset $container "envFrom" }}
{{- end }}
{{- if .root.Values.caBundle.configMap }}
{{- $mount := dict "name" "ca-bundle" "mountPath" "/etc/mrigan/ca" "readOnly" true }}
{{- $_ := set $container "volumeMounts" (append ($container.volumeMounts | default list) $mount) }}
{{- end }}
{{- end }}

{{/*
The memory of a pod: more after a kill for memory. Takes more (amounts), given (the usual amount). In backticks, which
YAML does not escape: Argo evaluates the expression in the text of the patch.
*/}}
{{- define "mrigan.memory" -}}
{{- $more := printf "[`%s`][min(sprig.int(retries), %d) - 1]" (join "`, `" .more) (len .more) -}}
{{ printf "{{=lastRetry.message matches `OOMKilled` ? %s : `%s`}}" $more (toString .given) }}
{{- end }}

{{/* Spec of the WorkflowTemplate: workflows/workflowtemplate.yaml with the fields of the site. */}}
{{- define "mrigan.spec" -}}
{{- $root := . }}
{{- $values := .Values }}
{{- $spec := (.Files.Get "workflows/workflowtemplate.yaml" | fromYaml).spec }}

{{- /* Parameters. */}}
{{- $own := list "data" "gpus" "storage" }}
{{- $known := list }}
{{- range $spec.arguments.parameters }}{{ if not (has .name $own) }}{{ $known = append $known .name }}{{ end }}{{ end }}
{{- include "mrigan.check-parameters" (dict "values" $values.parameters "known" $known "path" "parameters") }}
{{- $defaults := merge (pick $values "data" "gpus" "storage") $values.parameters }}
{{- range $parameter := $spec.arguments.parameters }}
{{- if hasKey $defaults .name }}
{{- $_ := set $parameter "value" (include "mrigan.string" (get $defaults .name)) }}
{{- end }}
{{- end }}

{{- /* The workflow. */}}
{{- $_ := set $spec "serviceAccountName" (include "mrigan.serviceAccountName" .) }}
{{- $_ := set $spec "parallelism" $values.parallelism }}
{{- $_ := set $spec "activeDeadlineSeconds" $values.activeDeadlineSeconds }}
{{- $_ := set $spec "ttlStrategy" $values.ttlStrategy }}
{{- with $values.imagePullSecrets }}{{ $_ := set $spec "imagePullSecrets" . }}{{ end }}
{{- with $values.priorityClassName }}{{ $_ := set $spec "podPriorityClassName" . }}{{ end }}
{{- /* podLabels cannot change app.kubernetes.io/name: the NetworkPolicy selects pods by it. */}}
{{- $_ := set $spec.podMetadata "labels" (merge $spec.podMetadata.labels $values.podLabels) }}
{{- with $values.podAnnotations }}{{ $_ := set $spec.podMetadata "annotations" . }}{{ end }}
{{- range $spec.volumes }}{{ if eq .name "tmp" }}{{ $_ := set .emptyDir "sizeLimit" $values.tmpSize }}{{ end }}{{ end }}
{{- with $values.caBundle }}
{{- if .configMap }}
{{- /* Optional like the Secret: otherwise a pod whose ConfigMap is missing would stay pending. */}}
{{- $source := dict "name" .configMap "optional" true "items" (list (dict "key" .key "path" "ca.crt")) }}
{{- $_ := set $spec "volumes" (append $spec.volumes (dict "name" "ca-bundle" "configMap" $source)) }}
{{- end }}
{{- end }}

{{- /* Argo's own containers. */}}
{{- $patch := $spec.podSpecPatch | fromYaml }}
{{- range $container := concat $patch.initContainers $patch.containers }}
{{- include "mrigan.reach" (dict "container" $container "root" $root) }}
{{- with $values.executor.resources }}{{ $_ := set $container "resources" . }}{{ end }}
{{- end }}
{{- $_ := set $spec "podSpecPatch" (toYaml $patch) }}

{{- /* The jobs' containers. */}}
{{- $container := $spec.templateDefaults.container }}
{{- $_ := set $container "image" (include "mrigan.image" (list $values.image dict)) }}
{{- $_ := set $container "imagePullPolicy" $values.image.pullPolicy }}
{{- range $container.ports }}
{{- if eq .name "metrics" }}{{ $_ := set . "containerPort" $values.metrics.port }}{{ end }}
{{- end }}
{{- range $container.env }}
{{- if eq .name "MRIGAN_METRICS_PORT" }}
{{- $_ := set . "value" (include "mrigan.string" $values.metrics.port) }}
{{- end }}
{{- end }}
{{- include "mrigan.reach" (dict "container" $container "root" $root) }}
{{- with $values.extraEnv }}{{ $_ := set $container "env" (concat ($container.env | default list) .) }}{{ end }}
{{- range $template := $spec.templates }}
{{- if hasKey . "container" }}
{{- $kind := ternary $values.training $values.light (eq .name "training-task") }}
{{- with $kind.image }}{{ $_ := set $template.container "image" (include "mrigan.image" (list $values.image .)) }}{{ end }}
{{- $_ := set .container "resources" $kind.resources }}
{{- range $name := list "nodeSelector" "tolerations" "affinity" }}
{{- with get $kind $name }}{{ $_ := set $template $name . }}{{ end }}
{{- end }}
{{- $_ := set . "timeout" $values.timeout }}
{{- with $values.pendingTimeout }}{{ $_ := set $template "pendingTimeout" . }}{{ end }}
{{- $patch := .podSpecPatch | default "" | fromYaml }}
{{- range $patched := $patch.containers }}
{{- $_ := set .resources.limits $values.gpuResource (get .resources.limits "nvidia.com/gpu") }}
{{- if ne $values.gpuResource "nvidia.com/gpu" }}{{ $_ := unset .resources.limits "nvidia.com/gpu" }}{{ end }}
{{- range $field := list "requests" "limits" }}
{{- $given := dig $field "memory" "" $kind.resources }}
{{- $amounts := get $patched.resources $field }}
{{- if and $given $values.training.moreMemory }}
{{- $_ := set $amounts "memory" (include "mrigan.memory" (dict "more" $values.training.moreMemory "given" $given)) }}
{{- else }}
{{- $_ := unset $amounts "memory" }}
{{- end }}
{{- end }}
{{- end }}
{{- with $kind.runtimeClassName }}{{ $_ := set $patch "runtimeClassName" . }}{{ end }}
{{- with $patch }}{{ $_ := set $template "podSpecPatch" (toYaml .) }}{{ end }}
{{- end }}
{{- end }}
{{- toYaml $spec }}
{{- end }}
