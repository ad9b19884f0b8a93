"""Metrics for those without Prometheus: to Graphite and to OTLP receivers, every few seconds.

The operator pushes its own in the same way: nothing here knows whose metrics they are.
"""
