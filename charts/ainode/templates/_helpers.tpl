{{/* The contract's strings, printed from api/contract: nothing here retypes them. */}}
{{- define "ainode.contract" -}}
{{- .Files.Get "files/contract.yaml" -}}
{{- end }}

{{- define "ainode.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{- define "ainode.webhook.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: webhook
{{- end }}

{{- define "ainode.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The four entries of a webhook: one for each pair of facts about a namespace,
each with its own path, so that the handler needs no look-up. While no webhook runs, an
entry's name is all that the user is shown of us: "failed calling webhook NAME".
Those that fail closed are named after what to look at.
dict: ctx, name (of the first), path, conditions (by opted-in), and more (a string of further fields). */}}
{{- define "ainode.entries" -}}
{{- $contract := include "ainode.contract" .ctx | fromYaml }}
{{- $enforce := "pod-security.kubernetes.io/enforce" }}
{{- range $optedIn := list false true }}
{{- range $restricted := list false true }}
- name: {{ if $optedIn }}opted-in.{{ end }}{{ if $restricted }}restricted.{{ end }}{{ $.name }}.{{ $contract.group }}
  admissionReviewVersions: [v1]
  sideEffects: None
  matchPolicy: Equivalent
  timeoutSeconds: {{ $.ctx.Values.admission.timeoutSeconds }}
  clientConfig:
    service:
      name: ainode-webhook
      namespace: {{ $.ctx.Release.Namespace }}
      path: {{ $.path }}{{ if $optedIn }}/opted-in{{ end }}{{ if $restricted }}/restricted{{ end }}
  namespaceSelector:
    matchExpressions:
    - {key: kubernetes.io/metadata.name, operator: NotIn, values: {{ concat $contract.untouchedNamespaces (list $.ctx.Release.Namespace) | uniq | toJson }}}
    - {key: {{ $contract.scheduleLabel }}, operator: {{ if $optedIn }}In{{ else }}NotIn{{ end }}, values: ["true"]}
    - {key: {{ $enforce }}, operator: {{ if $restricted }}In{{ else }}NotIn{{ end }}, values: [restricted]}
  matchConditions:
  {{- toYaml (ternary $.optedIn $.others $optedIn) | nindent 2 }}
  {{- tpl $.more $.ctx | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/*
What is looked at before a binding and by "kubectl ainode doctor", in clusters that
are targets: rules of a ClusterRole.
*/}}
{{- define "ainode.looks" }}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list]
- apiGroups: [""]
  resources: [services]
  verbs: [list]
- apiGroups: [apps]
  resources: [daemonsets]
  verbs: [get, list]
- apiGroups: [""] # whether a network plugin taints nodes where its agent does not run
  resources: [configmaps]
  resourceNames: [cilium-config, aci-containers-config]
  verbs: [get]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies, servicecidrs]
  verbs: [list]
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingwebhookconfigurations]
  verbs: [list]
{{- end }}
