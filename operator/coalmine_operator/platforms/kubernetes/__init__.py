"""The Kubernetes platform: model deployments of a cluster, their children written by server-side apply."""

from .client import ApiError, Client
from .platform import KubernetesPlatform
from .settings import Settings

__all__ = ["ApiError", "Client", "KubernetesPlatform", "Settings"]
