"""The sidecar: stands before a model container, routes each request, records what the model answers."""
