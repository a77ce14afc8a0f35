{{- define "ext-authz.container" -}}
name: ext-authz
image: {{ include "ext-authz.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve, --config, /etc/ext-authz/config/config.yaml]
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: grpc-check
    containerPort: {{ .Values.service.port }}
  - name: http-admin
    containerPort: {{ .Values.service.adminPort }}
startupProbe:
  httpGet: {path: /livez, port: http-admin}
  periodSeconds: 1
  failureThreshold: {{ .Values.probes.startupSeconds }}
livenessProbe:
  httpGet: {path: /livez, port: http-admin}
  periodSeconds: {{ .Values.probes.periodSeconds }}
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http-admin}
  periodSeconds: {{ .Values.probes.periodSeconds }}
  timeoutSeconds: 2
  failureThreshold: 2
{{- if .Values.shutdown.delaySeconds }}
lifecycle:
  preStop:
    sleep: {seconds: {{ .Values.shutdown.delaySeconds }}}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  # whole directories: a file mounted by itself (subPath) would never change
  - {name: config, mountPath: /etc/ext-authz/config, readOnly: true}
  {{- if .Values.policies.files }}
  - {name: policies, mountPath: /etc/ext-authz/policies/files, readOnly: true}
  {{- end }}
  {{- range $index, $name := .Values.policies.configMaps }}
  - {name: policies-{{ $index }}, mountPath: /etc/ext-authz/policies/configmaps/{{ $name }}, readOnly: true}
  {{- end }}
  {{- range $index, $bundle := .Values.trustBundles }}
  - {name: bundle-{{ $index }}, mountPath: /etc/ext-authz/bundles/{{ $bundle.trustDomain }}, readOnly: true}
  {{- end }}
  {{- if .Values.tls.enabled }}
  - {name: tls, mountPath: /etc/ext-authz/tls, readOnly: true}
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "ext-authz.volumes" -}}
- name: config
  configMap: {name: {{ include "ext-authz.fullname" . }}}
{{- if .Values.policies.files }}
- name: policies
  configMap: {name: {{ include "ext-authz.fullname" . }}-policies}
{{- end }}
{{- range $index, $name := .Values.policies.configMaps }}
- name: policies-{{ $index }}
  configMap: {name: {{ $name }}}
{{- end }}
{{- range $index, $bundle := .Values.trustBundles }}
- name: bundle-{{ $index }}
  {{- if $bundle.configMap }}
  configMap: {name: {{ $bundle.configMap }}}
  {{- else }}
  secret: {secretName: {{ $bundle.secret }}}
  {{- end }}
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  secret: {secretName: {{ include "ext-authz.tlsSecretName" . }}}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ext-authz.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "ext-authz.pod" -}}
metadata:
  annotations:
    # a change of the listeners counts only in a new process; every other change is read while the server runs
    ext-authz/listener: {{ printf "%s %v" (unset (unset (include "ext-authz.listener" . | fromYaml) "drain_seconds") "lame_duck_seconds" | toJson) .Values.service.adminPort | sha256sum | trunc 16 | quote }}
    {{- if and .Values.istio.enabled (not (hasKey .Values.podAnnotations "proxy.istio.io/config")) }}
    # for a sidecar of Istio, if there is one: it is there before the first keys are fetched, and as long as the server answers
    proxy.istio.io/config: {{ dict "holdApplicationUntilProxyStarts" true "terminationDrainDuration" (printf "%ds" (include "ext-authz.leavingSeconds" . | int)) | toJson | quote }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  # without versions: another version of the chart alone is no reason for new pods
  labels:
    {{- include "ext-authz.selector" . | nindent 4 }}
    {{- with mergeOverwrite (deepCopy .Values.commonLabels) .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "ext-authz.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  # the delay, the time as a lame duck, the draining, and something for the end
  terminationGracePeriodSeconds: {{ add (include "ext-authz.leavingSeconds" . | int) .Values.shutdown.marginSeconds }}
  securityContext:
    {{- include "ext-authz.podSecurity" . | nindent 4 }}
  containers:
    -
      {{- include "ext-authz.container" . | nindent 6 }}
  volumes:
    {{- include "ext-authz.volumes" . | nindent 4 }}
  {{- if and .Values.topologySpread.enabled (eq .Values.kind "Deployment") }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: {{ $.Values.topologySpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "ext-authz.selector" $ | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
