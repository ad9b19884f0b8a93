"""Models as processes of this machine: the same engine, the same sidecar, the same manifest, no cluster."""

from .platform import LocalPlatform
from .refused import Refused

__all__ = ["LocalPlatform", "Refused"]
