"""The admission webhooks: a process of its own, without any rights in the cluster."""
