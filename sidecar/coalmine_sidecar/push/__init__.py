"""The sidecar's metrics for those without Prometheus: to Graphite and to OTLP receivers, every few seconds."""
