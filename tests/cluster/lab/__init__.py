"""A Kubernetes cluster for tests: a node of our own, or one that the user points at.

`python -m tests.cluster.lab` runs the node in the foreground.
"""
