{{/* What no schema can say of values that contradict each other. */}}
{{- define "ext-authz.checks" -}}
{{- $own := list "helm.sh/chart" "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" -}}
{{- $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels -}}
{{- range list "serviceMonitor" "podMonitor" "prometheusRule" -}}
{{- $_ := set $labels (printf "monitoring.%s.labels" .) (get $.Values.monitoring .).labels -}}
{{- end -}}
{{- range $place, $given := $labels -}}
{{- range $name := $own -}}
{{- if hasKey $given $name -}}
{{- fail (printf "%s: the chart itself writes %s, and selects by it; remove it (nameOverride sets the name)" $place $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq (int .Values.service.port) (int .Values.service.adminPort) -}}
{{- fail "service.adminPort is the same as service.port; probes and metrics need a port of their own" -}}
{{- end -}}
{{- $listener := .Values.config.listener | default dict -}}
{{- if and (hasKey $listener "workers") (ne (toString .Values.workers) "1") -}}
{{- fail "workers: config.listener.workers says how many already; keep one of the two" -}}
{{- end -}}
{{- if and .Values.monitoring.serviceMonitor.enabled .Values.monitoring.podMonitor.enabled -}}
{{- fail "monitoring: with serviceMonitor and podMonitor every server is scraped, and counted, twice; enable one of them" -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- $cpu := coalesce (dig "requests" "cpu" "" .Values.resources) (dig "limits" "cpu" "" .Values.resources) -}}
{{- if not $cpu -}}
{{- fail "autoscaling.enabled: the load is measured against resources.requests.cpu, which is not set" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.istio.destinationRule.enabled .Values.tls.enabled (not (has .Values.istio.destinationRule.tlsMode (list "SIMPLE" "MUTUAL"))) -}}
{{- fail "istio.destinationRule.tlsMode: with tls.enabled proxies must speak TLS to the server itself; set SIMPLE or MUTUAL" -}}
{{- end -}}
{{- end -}}
