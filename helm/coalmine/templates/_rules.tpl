{{/*
The rules, for a PrometheusRule or for the file of a Prometheus without its operator.

Alerts about a version carry namespace, modeldeployment, model, version and track: by these Coalmine knows which model
deployment an alert is about, and whether the canary is to blame. The name of a record does not tell its window: dashboards
and alerts stay as they are when rules.window changes.
*/}}
{{- define "coalmine.rules" -}}
groups:
{{ include "coalmine.rules.records" . }}
{{ include "coalmine.rules.alerts" . }}
{{- end }}

{{- define "coalmine.rules.interval" }}
{{- with .Values.rules.interval }}
  interval: {{ . }}
{{- end }}
{{- end }}

{{- define "coalmine.rules.records" -}}
{{- $window := .Values.rules.window }}
{{- $model := "namespace, modeldeployment, model" }}
{{- $version := printf "%s, version, track" $model -}}
- name: coalmine.records
  {{- include "coalmine.rules.interval" . }}
  rules:
    # Requests that clients sent, by the version that was to answer them: answered, failed at the client, or rescued,
    # which means that another version answered. Only ingress: a request handed on is counted there already. What the
    # sidecar rejects is the client's fault, but for 5xx: a full queue, no routing file.
    - record: coalmine:requests:increase
      labels: {result: answered}
      expr: |-
        sum by ({{ $version }}) (
          increase(coalmine_requests_total{role="ingress", outcome!~"model_error|timeout|rejected"}[{{ $window }}])
          or increase(coalmine_requests_total{role="ingress", outcome="rejected", code!~"5.."}[{{ $window }}]))
    - record: coalmine:requests:increase
      labels: {result: failed}
      expr: |-
        sum by ({{ $version }}) (
          increase(coalmine_requests_total{role="ingress", outcome=~"model_error|timeout"}[{{ $window }}])
          or increase(coalmine_requests_total{role="ingress", outcome="rejected", code=~"5.."}[{{ $window }}]))
    # Fallbacks know no track: the version's weight does. topk: for a moment pods may tell two tracks of one version.
    - record: coalmine:requests:increase
      labels: {result: rescued}
      expr: |-
        label_replace(
          sum by ({{ $model }}, from_version) (increase(coalmine_fallbacks_total[{{ $window }}])),
          "version", "$1", "from_version", "(.*)")
        * on ({{ $model }}, version) group_left (track)
        (topk by ({{ $model }}, version) (1, max by ({{ $version }}) (coalmine_route_weight)) * 0 + 1)
    - record: coalmine:requests:rate
      expr: sum by ({{ $version }}) (rate(coalmine_requests_total{role="ingress"}[{{ $window }}]))
    - record: coalmine:failed:ratio
      expr: |-
        1 - sum by ({{ $version }}) (coalmine:requests:increase{result="answered"})
        / sum by ({{ $version }}) (coalmine:requests:increase)
    - record: coalmine:rescued:ratio
      expr: |-
        sum by ({{ $model }}) (coalmine:requests:increase{result="rescued"})
        / sum by ({{ $model }}) (coalmine:requests:increase)
    {{- range $quantile := list 0.5 0.95 0.99 }}
    - record: coalmine:request_duration_seconds:quantile
      labels: {quantile: {{ $quantile | quote }}}
      expr: |-
        histogram_quantile({{ $quantile }},
          sum by ({{ $version }}, le) (rate(coalmine_request_duration_seconds_bucket{role="ingress"}[{{ $window }}])))
    {{- end }}
    # How far the canary's outputs are from stable's: the population stability index, half a count added to each bin.
    - record: coalmine:output_bin:increase
      expr: |-
        sum by ({{ $model }}, track, output, bin) (increase(coalmine_output_bin_total{track=~"stable|canary"}[{{ $window }}]))
    - record: coalmine:output_bin:share
      expr: |-
        (coalmine:output_bin:increase + 0.5)
        / on ({{ $model }}, track, output) group_left ()
        sum by ({{ $model }}, track, output) (coalmine:output_bin:increase + 0.5)
    - record: coalmine:output_psi:canary
      expr: |-
        sum by ({{ $model }}, output) (
          (coalmine:output_bin:share{track="canary"}
            - on ({{ $model }}, output, bin) coalmine:output_bin:share{track="stable"})
          * ln(coalmine:output_bin:share{track="canary"}
            / on ({{ $model }}, output, bin) coalmine:output_bin:share{track="stable"}))
        and on ({{ $model }}, output)
        sum by ({{ $model }}, output) (coalmine:output_bin:increase{track="canary"}) >= 200
{{- end }}

{{/* One alert, as an entry of `rules`. The argument: (list context name for severity expr summary description) */}}
{{- define "coalmine.alert" -}}
{{- $ := index . 0 }}{{ $name := index . 1 }}
{{- if not (has $name $.Values.rules.disabled) }}
    - alert: {{ $name }}
      expr: |-
        {{- index . 4 | trim | nindent 8 }}
      for: {{ index . 2 }}
      labels:
        severity: {{ index . 3 }}
        {{- with $.Values.rules.labels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        summary: {{ index . 5 | quote }}
        description: {{ index . 6 | quote }}
{{- end }}
{{- end }}

{{- define "coalmine.rules.alerts" -}}
{{- $r := .Values.rules }}
{{- $model := "namespace, modeldeployment, model" }}
{{- $version := printf "%s, version, track" $model }}
{{- $enough := printf "and on (%s) sum by (%s) (coalmine:requests:increase) >= %v" $version $version $r.minRequests }}
{{- $deployment := `label_replace(%s, "modeldeployment", "$1", "name", "(.+)")` }}
{{- /* A model deployment whose own rules (`coalmine rules`) are loaded is told of by those: each of these two has one owner. */}}
{{- $unowned := "unless on (namespace, modeldeployment) coalmine:rules_window:seconds" -}}
- name: coalmine.models
  {{- include "coalmine.rules.interval" . }}
  rules:
    {{- include "coalmine.alert" (list . "ModelErrorRateHigh" $r.errors.for "critical"
      (printf "coalmine:failed:ratio > %v\n%s" $r.errors.ratio $enough)
      `{{ $labels.model }} {{ $labels.version }} ({{ $labels.track }}) fails at {{ $value | humanizePercentage }} of its requests`
      `Model errors and timeouts, also those that another version answered for it. See what the model logs, or: kubectl describe md {{ $labels.modeldeployment }} -n {{ $labels.namespace }}`) }}
    {{- include "coalmine.alert" (list . "ModelLatencyHigh" $r.latency.for "critical"
      (printf "coalmine:request_duration_seconds:quantile{quantile=%q} > %v\n%s" (toString $r.latency.quantile) $r.latency.seconds
        (printf "and on (%s) sum by (%s) (coalmine:requests:increase) >= %v" $version $version $r.minRequests))
      `{{ $labels.model }} {{ $labels.version }} ({{ $labels.track }}) answers in {{ $value | humanizeDuration }} (quantile {{ $labels.quantile }})`
      `Compare coalmine_upstream_duration_seconds, the model's part, with coalmine_overhead_seconds, the sidecar's; and the model's CPU with its limit.`) }}
    {{- include "coalmine.alert" (list . "ModelUnavailable" $r.unavailable.for "critical"
      (printf "max by (namespace, modeldeployment) (%s)\n%s" (printf $deployment
        "(coalmine_deployment_available == 0 unless on (namespace, name) coalmine_deployment_phase{phase=\"Pending\"} == 1)") $unowned)
      `{{ $labels.modeldeployment }} in {{ $labels.namespace }} has no ready pod of any version`
      `Requests get 503. A first version that never was ready does not count. See: kubectl describe md {{ $labels.modeldeployment }} -n {{ $labels.namespace }}`) }}
    {{- include "coalmine.alert" (list . "ModelFallbacksHigh" $r.fallbacks.for "warning"
      (printf "coalmine:rescued:ratio > %v" $r.fallbacks.ratio)
      `{{ $value | humanizePercentage }} of the requests to {{ $labels.model }} are answered by another version than was meant to`
      `Clients see no errors yet; a version refuses, breaks or times out. coalmine_fallbacks_total tells which and why.`) }}
    {{- include "coalmine.alert" (list . "ModelMemoryHigh" "5m" "warning"
      (printf "max by (%s, pod) (coalmine_model_memory_bytes{kind=\"rss\"})\n/ max by (%s, pod) (coalmine_model_memory_bytes{kind=\"limit\"}) > %v" $version $version $r.memory.ratio)
      `{{ $labels.model }} {{ $labels.version }} uses {{ $value | humanizePercentage }} of its memory limit`
      `Over the limit the kernel kills it. Pod {{ $labels.pod }} in {{ $labels.namespace }}.`) }}
- name: coalmine.itself
  {{- include "coalmine.rules.interval" . }}
  rules:
    {{- include "coalmine.alert" (list . "CoalmineOperatorDown" "5m" "warning"
      "absent(coalmine_operator_reconciles_total)"
      `The Coalmine operator cannot be scraped`
      `Models keep answering by the routing they have; rollouts stand still and alerts roll nothing back.`) }}
    {{- include "coalmine.alert" (list . "CoalmineReconcilesFailing" "10m" "warning"
      "sum(rate(coalmine_operator_reconciles_total{result=\"error\"}[5m])) > 0"
      `The Coalmine operator fails to bring about what is wanted`
      `Its log says what and why, one line each.`) }}
    {{- include "coalmine.alert" (list . "CoalmineAlertsRefused" "0s" "warning"
      "increase(coalmine_operator_alerts_received_total{result=\"refused\"}[15m]) > 0"
      `Coalmine refused webhooks of Alertmanager`
      `Their alerts rolled nothing back. Alertmanager's log has the reason.`) }}
    {{- include "coalmine.alert" (list . "MonitoringBlind" "10m" "warning"
      (printf "max by (namespace, modeldeployment) (%s) == 1\nunless on (namespace, modeldeployment) coalmine_route_weight\n%s" (printf $deployment "coalmine_deployment_available") $unowned)
      `No sidecar of {{ $labels.modeldeployment }} in {{ $labels.namespace }} is scraped`
      `The model answers, but its errors and latency cannot alert. Does Prometheus find port 8010 of its pods?`) }}
    {{- include "coalmine.alert" (list . "OutputsUnread" "10m" "warning"
      (printf "(\n  sum by (%s) (rate(coalmine_observations_skipped_total[5m]))\n  + sum by (%s) (rate(coalmine_extract_failures_total[5m]))\n)\n/ on (%s) sum by (%s) (rate(coalmine_requests_total{role=\"ingress\", outcome=\"ok\"}[5m])) > 0.5\nand on (%s) sum by (%s) (coalmine_predictions_total) > 0" $version $version $version $version $model $model)
      `Most answers of {{ $labels.model }} {{ $labels.version }} are not read: drift would go unseen`
      `coalmine_observations_skipped_total and coalmine_extract_failures_total tell the reasons.`) }}
    {{- include "coalmine.alert" (list . "RoutingBehind" "5m" "warning"
      (printf "max by (%s) (coalmine_routing_generation) - min by (%s) (coalmine_routing_generation) > 0" "namespace, modeldeployment" "namespace, modeldeployment")
      `Pods of {{ $labels.modeldeployment }} in {{ $labels.namespace }} do not agree on the weights`
      `Some sidecar does not get its routing file, or cannot use it: see coalmine_routing_errors_total and its /readyz.`) }}
{{- end }}
