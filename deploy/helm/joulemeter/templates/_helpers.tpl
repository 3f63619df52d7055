{{- define "joulemeter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "joulemeter.fullname" -}}
{{- $name := include "joulemeter.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* A cluster-wide name: two namespaces may have releases of one name. */}}
{{- define "joulemeter.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "joulemeter.fullname" .) }}
{{- end }}

{{- define "joulemeter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "joulemeter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "joulemeter.labels" -}}
{{ include "joulemeter.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "joulemeter.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "joulemeter.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "joulemeter.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- /*
What the configuration asks for, so that nobody says it twice. Non-empty is yes.
*/}}
{{- define "joulemeter.discovers" -}}
{{- if and (not .Values.simulated) (dig "discovery" "kubernetes" false .Values.config) }}yes{{ end }}
{{- end }}

{{- define "joulemeter.stateDir" -}}
{{- if not .Values.simulated }}{{ .Values.config.state_dir | default "" }}{{ end }}
{{- end }}

{{- /* The kubelet makes the socket anew at every start, so its directory is mounted. */}}
{{- define "joulemeter.podResourcesDir" -}}
{{- dig "discovery" "pod_resources_socket" "/var/lib/kubelet/pod-resources/kubelet.sock" .Values.config | dir }}
{{- end }}

{{- define "joulemeter.seesProcesses" -}}
{{- if and .Values.hostPID (not .Values.simulated) }}yes{{ end }}
{{- end }}

{{- define "joulemeter.gpuMode" -}}
{{- ternary "none" .Values.gpuAccess.mode .Values.simulated }}
{{- end }}

{{- /* The least that the chosen features can do with; the user's values are merged over it. */}}
{{- define "joulemeter.podSecurityContext" -}}
{{- $context := dict "seccompProfile" (dict "type" "RuntimeDefault") }}
{{- if or (include "joulemeter.discovers" .) (include "joulemeter.seesProcesses" .) }}
{{- $context = merge $context (dict "runAsNonRoot" false "runAsUser" 0 "runAsGroup" 0) }}
{{- else }}
{{- $context = merge $context (dict "runAsNonRoot" true "runAsUser" 65532 "runAsGroup" 65532 "fsGroup" 65532) }}
{{- end }}
{{- toYaml (mergeOverwrite $context (deepCopy .Values.podSecurityContext)) }}
{{- end }}

{{- define "joulemeter.containerSecurityContext" -}}
{{- $capabilities := dict "drop" (list "ALL") }}
{{- if include "joulemeter.seesProcesses" . }}
{{- /* Another user's /proc/PID/fd: one to list it, one to see what its links point to. */}}
{{- $_ := set $capabilities "add" (list "DAC_READ_SEARCH" "SYS_PTRACE") }}
{{- end }}
{{- $context := dict "readOnlyRootFilesystem" true "capabilities" $capabilities }}
{{- if eq (include "joulemeter.gpuMode" .) "hostPath" }}
{{- $context = merge $context (dict "privileged" true) }}
{{- else }}
{{- $context = merge $context (dict "allowPrivilegeEscalation" false) }}
{{- end }}
{{- toYaml (mergeOverwrite $context (deepCopy .Values.containerSecurityContext)) }}
{{- end }}

{{- define "joulemeter.resources" -}}
{{- $resources := deepCopy .Values.resources }}
{{- if eq (include "joulemeter.gpuMode" .) "dra" }}
{{- $_ := set $resources "claims" (append (default list $resources.claims) (dict "name" "gpus")) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{- /*
With a web configuration the kubelet could ask nothing: it has no client certificate, a password would stand in the pod's own
text, and a command in the container would need the same and start a Python every ten seconds. So it looks whether the port is
open. That a loop no longer ticks is then left to the alerts.
*/}}
{{- define "joulemeter.probe" -}}
{{- $root := index . 0 }}
{{- if and $root.Values.config.web_config_file (not $root.Values.simulated) -}}
tcpSocket: {port: metrics}
{{- else -}}
httpGet: {path: {{ index . 1 }}, port: metrics}
{{- end }}
{{- end }}

{{- /* What PodMonitor and ServiceMonitor have in common: how a pod is scraped. */}}
{{- define "joulemeter.endpoint" -}}
port: metrics
path: /metrics
scheme: {{ .scheme }}
interval: {{ .interval }}
scrapeTimeout: {{ .scrapeTimeout }}
{{- with .tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .basicAuth }}
basicAuth:
  {{- toYaml . | nindent 2 }}
{{- end }}
# namespace and pod on our series are those of the serving pod, not of the exporter's.
honorLabels: true
relabelings:
  # The node, not the pod's address: a new address at every restart would cut increase() into pieces.
  - sourceLabels: [__meta_kubernetes_pod_node_name]
    targetLabel: instance
  # What the alerts ask for, whatever the release is called.
  - targetLabel: job
    replacement: joulemeter
  # Labels of the exporter's own pod: with them a rollout would make every series anew.
  - action: labeldrop
    regex: pod|container|namespace|endpoint|service
  {{- with .relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The generated rules, unrendered: their braces are Prometheus's. What is changed in them, values ask for. */}}
{{- define "joulemeter.rules" -}}
{{- $text := .Files.Get "files/prometheus/rules.yaml" | trim }}
{{- with .Values.prometheusRule.runbookBaseUrl }}
{{- $text = $text | replace "runbook_url: docs/runbook/" (printf "runbook_url: %s/" (trimSuffix "/" .)) }}
{{- end }}
{{- with .Values.prometheusRule.disabled }}
{{- $rules := fromYaml $text }}
{{- $left := . }}
{{- $known := list }}
{{- range $group := $rules.groups }}
{{- $kept := list }}
{{- range $rule := $group.rules }}
{{- with $rule.alert }}{{ $known = append $known . }}{{ end }}
{{- if not (and $rule.alert (has $rule.alert $left)) }}{{ $kept = append $kept $rule }}{{ end }}
{{- end }}
{{- $_ := set $group "rules" $kept }}
{{- end }}
{{- range $left }}
{{- if not (has . $known) }}
{{- fail (printf "prometheusRule.disabled: no alert is called %s; known: %s" . (join ", " $known)) }}
{{- end }}
{{- end }}
{{- $text = toYaml $rules }}
{{- end }}
{{- $text }}
{{- end }}
