{{- define "ext-authz.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "ext-authz.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "ext-authz.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "ext-authz.selector" -}}
app.kubernetes.io/name: {{ include "ext-authz.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ext-authz.ownLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "ext-authz.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "ext-authz.labels" -}}
{{ include "ext-authz.ownLabels" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ext-authz.metadata" -}}
name: {{ include "ext-authz.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "ext-authz.labels" . | nindent 2 }}
{{- end -}}

{{- define "ext-authz.host" -}}
{{ include "ext-authz.fullname" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end -}}

{{/* the service that a proxy asks that balances by itself: one where each pod has an address, unless only the node's own shall */}}
{{- define "ext-authz.balancedName" -}}
{{- $one := or .Values.service.headless (eq .Values.service.internalTrafficPolicy "Local") -}}
{{ include "ext-authz.fullname" . }}{{ ternary "" "-headless" $one }}
{{- end -}}

{{/* the pod of `helm test`: not the labels of the servers, or the service would send checks there */}}
{{- define "ext-authz.testSelector" -}}
app.kubernetes.io/name: {{ include "ext-authz.name" . | trunc 58 | trimSuffix "-" }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ext-authz.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "ext-authz.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "ext-authz.tlsSecretName" -}}
{{- .Values.tls.secretName | default (printf "%s-tls" (include "ext-authz.fullname" .)) -}}
{{- end -}}

{{- define "ext-authz.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* seconds as protobuf's JSON form writes durations */}}
{{- define "ext-authz.seconds" -}}
{{ printf "%.3fs" (float64 .) }}
{{- end -}}

{{/* seconds as Kubernetes durations are written */}}
{{- define "ext-authz.milliseconds" -}}
{{ printf "%dms" (round (mulf . 1000) 0 | int) }}
{{- end -}}
