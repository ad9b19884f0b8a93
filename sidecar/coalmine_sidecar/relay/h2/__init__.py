"""HTTP/2 without TLS, for gRPC: a connection whose first bytes are the preface is taken over from `downstream`.

Each stream is a request of its own: routed, sent over shared connections to the revision's endpoints, recorded. Frames
are read and written here, header blocks by `hpack`; tests/benchmarks/grpc.md has what the libraries made of it.
"""
