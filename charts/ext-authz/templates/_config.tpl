{{/* What the listeners are started with: a change of it needs new pods, a change of anything else does not. */}}
{{- define "ext-authz.listener" -}}
{{- $listener := deepCopy (.Values.config.listener | default dict) -}}
{{- $_ := set $listener "address" (printf "%s:%d" .Values.bindAddress (int .Values.service.port)) -}}
{{- if .Values.tls.enabled -}}
{{- $tls := dict "certificate_file" "/etc/ext-authz/tls/tls.crt" "key_file" "/etc/ext-authz/tls/tls.key" -}}
{{- if .Values.tls.clientAuthentication -}}
{{- $_ := set $tls "client_ca_file" "/etc/ext-authz/tls/ca.crt" -}}
{{- end -}}
{{- $_ := set $listener "tls" $tls -}}
{{- end -}}
{{- if and (ne (toString .Values.workers) "1") (not (hasKey $listener "workers")) -}}
{{- $_ := set $listener "workers" .Values.workers -}}
{{- end -}}
{{ toYaml $listener }}
{{- end -}}

{{- define "ext-authz.config" -}}
{{- $spec := deepCopy .Values.config -}}
{{- $_ := set $spec "listener" (include "ext-authz.listener" . | fromYaml) -}}
{{- $_ := set $spec "admin" (dict "address" (printf "%s:%d" .Values.bindAddress (int .Values.service.adminPort))) -}}
{{- $policies := .Values.config.policies | default list -}}
{{- if .Values.policies.files -}}
{{- $policies = append $policies "/etc/ext-authz/policies/files/*.yaml" -}}
{{- end -}}
{{- range .Values.policies.configMaps -}}
{{- $policies = append $policies (printf "/etc/ext-authz/policies/configmaps/%s/*.yaml" .) -}}
{{- end -}}
{{- with $policies -}}
{{- $_ := set $spec "policies" . -}}
{{- end -}}
{{- $bundles := .Values.config.trust_bundles | default list -}}
{{- $domains := list -}}
{{- range .Values.trustBundles -}}
{{- if has .trustDomain $domains -}}
{{- fail (printf "trustBundles: the trust domain %s is there twice; put its authorities into one file" .trustDomain) -}}
{{- end -}}
{{- $domains = append $domains .trustDomain -}}
{{- $file := printf "/etc/ext-authz/bundles/%s/%s" .trustDomain .key -}}
{{- $bundles = append $bundles (dict "trust_domain" .trustDomain "files" (list $file)) -}}
{{- end -}}
{{- with $bundles -}}
{{- $_ := set $spec "trust_bundles" . -}}
{{- end -}}
apiVersion: ext-authz/v1alpha1
kind: Server
metadata:
  name: {{ include "ext-authz.fullname" . }}
spec:
  {{- toYaml $spec | nindent 2 }}
{{- end -}}

{{- define "ext-authz.drainSeconds" -}}
{{- $listener := .Values.config.listener | default dict -}}
{{- if hasKey $listener "drain_seconds" -}}{{ ceil $listener.drain_seconds }}{{- else -}}10{{- end -}}
{{- end -}}

{{- define "ext-authz.lameDuckSeconds" -}}
{{- $listener := .Values.config.listener | default dict -}}
{{- if hasKey $listener "lame_duck_seconds" -}}{{ ceil $listener.lame_duck_seconds }}{{- else -}}6{{- end -}}
{{- end -}}

{{/* how long a pod still answers after it was told to go */}}
{{- define "ext-authz.leavingSeconds" -}}
{{ add .Values.shutdown.delaySeconds (include "ext-authz.lameDuckSeconds" . | int) (include "ext-authz.drainSeconds" . | int) }}
{{- end -}}

{{/* ports of the URLs in the configuration, and 443, to which a discovered document may point */}}
{{- define "ext-authz.remotePorts" -}}
{{- $urls := list "https://any" -}}
{{- range .Values.config.issuers -}}
{{- $keys := .keys | default dict -}}
{{- $urls = concat $urls (compact (list (ternary .issuer "" (hasKey $keys "discovery")) $keys.url $keys.metadata_url)) -}}
{{- end -}}
{{- with dig "telemetry" "traces" "endpoint" "" .Values.config -}}
{{- $urls = append $urls . -}}
{{- end -}}
{{- $ports := list -}}
{{- range $urls -}}
{{- $url := urlParse . -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) -}}
{{- $ports = append $ports (int ($port | default (ternary "80" "443" (eq $url.scheme "http")))) -}}
{{- end -}}
{{ uniq $ports | toJson }}
{{- end -}}
