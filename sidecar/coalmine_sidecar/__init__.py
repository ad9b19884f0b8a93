"""The sidecar: stands before a model container, routes each request, records what the model answers."""

#: That of pyproject.toml; a test holds them together. The package's metadata would say it too, for a MB of readers.
VERSION = "0.1.0"
