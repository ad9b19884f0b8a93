{{/* Names. Everything is called after the release; a release called coalmine does not stutter. */}}
{{- define "coalmine.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}
{{- end }}

{{- define "coalmine.fullname" -}}
{{- .Values.fullnameOverride | default (include "coalmine.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "coalmine.operator.name" -}}{{ include "coalmine.fullname" . }}-operator{{- end }}
{{- define "coalmine.webhook.name" -}}{{ include "coalmine.fullname" . }}-webhook{{- end }}
{{- define "coalmine.certificate.secret" -}}{{ include "coalmine.webhook.name" . }}-tls{{- end }}

{{/* Objects of the cluster carry the namespace: two releases of one name in two namespaces must not share them. */}}
{{- define "coalmine.cluster.name" -}}{{ include "coalmine.fullname" . }}:{{ .Release.Namespace }}{{- end }}
{{- define "coalmine.webhook.configuration" -}}{{ include "coalmine.webhook.name" . }}.{{ .Release.Namespace }}{{- end }}

{{- define "coalmine.operator.serviceAccount" -}}
{{- .Values.operator.serviceAccount.name | default (ternary (include "coalmine.operator.name" .) "default" .Values.operator.serviceAccount.create) }}
{{- end }}
{{- define "coalmine.webhook.serviceAccount" -}}
{{- .Values.webhook.serviceAccount.name | default (ternary (include "coalmine.webhook.name" .) "default" .Values.webhook.serviceAccount.create) }}
{{- end }}

{{- define "coalmine.alerts.secret" -}}
{{- .Values.alerts.existingSecret.name | default (printf "%s-alerts" (include "coalmine.fullname" .)) }}
{{- end }}
{{- define "coalmine.alerts.key" -}}
{{- ternary .Values.alerts.existingSecret.key "token" (ne .Values.alerts.existingSecret.name "") }}
{{- end }}

{{/* Labels. The argument is (list context component), of labels also (list context component further): these come before
     commonLabels, and no key may stand twice. */}}
{{- define "coalmine.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ $.Chart.Name }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "coalmine.labels" -}}
{{- $ := index . 0 -}}
{{ include "coalmine.selector" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
app.kubernetes.io/part-of: coalmine
helm.sh/chart: {{ $.Chart.Name }}-{{ $.Chart.Version | replace "+" "_" }}
{{- with merge (dict) (index (append . dict) 2 | default dict) ($.Values.commonLabels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An image's reference. The argument is (list context image). */}}
{{- define "coalmine.image" -}}
{{- $ := index . 0 }}{{ $image := index . 1 -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ $image.tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* What the pod security standard `restricted` asks of a pod and of a container, and a root nobody writes to. */}}
{{- define "coalmine.security.pod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}
{{- define "coalmine.security.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where pods go, as further keys of a pod template's spec. The argument is operator or webhook of the values. */}}
{{- define "coalmine.placement" }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with index $ $key }}
      {{ $key }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}

{{/* What operator and webhook tell new sidecars: flags that both know. */}}
{{- define "coalmine.sidecar.flags" -}}
- --sidecar-image={{ include "coalmine.image" (list . .Values.sidecar.image) }}
- --sidecar-pull-policy={{ .Values.sidecar.image.pullPolicy }}
{{- with .Values.sidecar.resources }}
- --sidecar-cpu-request={{ .requests.cpu }}
- --sidecar-memory-request={{ .requests.memory }}
- --sidecar-memory-limit={{ .limits.memory }}
{{- end }}
{{- with .Values.push }}
{{- with .graphite }}
{{- if .address }}
- --push-graphite={{ .address }}
- --push-graphite-prefix={{ .prefix }}
- --push-graphite-tags={{ .tags }}
{{- end }}
{{- end }}
{{- with .otlp }}
{{- if .url }}
- --push-otlp={{ .url }}
{{- with .headersSecret }}
{{- if .name }}
- --push-otlp-headers-secret={{ .name }}/{{ .key }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if or .graphite.address .otlp.url }}
- --push-interval={{ .interval }}
{{- end }}
{{- end }}
{{- end }}

{{/* Ports of those who get metrics without asking, a JSON list. */}}
{{- define "coalmine.push.ports" -}}
{{- $ports := list }}
{{- with .Values.push }}
{{- with .graphite.address }}{{ $ports = append $ports (regexFind "[0-9]+$" .) }}{{ end }}
{{- with .otlp.url }}
{{- $url := urlParse . }}
{{- $given := regexFind ":[0-9]+$" $url.host | trimPrefix ":" }}
{{- $ports = append $ports ($given | default (ternary "443" "80" (eq $url.scheme "https"))) }}
{{- end }}
{{- end }}
{{- $ports | uniq | toJson }}
{{- end }}

{{/* Whether the operator keeps the webhook's certificate. Empty: no. */}}
{{- define "coalmine.ownAuthority" -}}
{{- if and .Values.webhook.enabled (not .Values.certificates.certManager.enabled) }}true{{ end }}
{{- end }}
