"""The last good spec of a model deployment, kept in the cluster for the day when a newer one is bad.

In a Secret of its own, which nobody mounts: a template may hold what only readers of Secrets should see.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from ...api.codec import spec_from_json, to_json
from ...api.problems import Invalid
from ...api.spec import ModelDeploymentSpec
from ...render import labels
from .applying import Applier
from .client import ApiError, Client
from .kinds import SECRET

FILE: Final = "spec.json"


class LastGood:
    """Of one model deployment; `uid` is its own: of another of its name nothing is remembered."""

    def __init__(self, client: Client, applier: Applier, namespace: str, name: str, uid: str) -> None:
        self._client = client
        self._applier = applier
        self._namespace = namespace
        self._name = f"{name}-spec"
        self._uid = uid
        self.spec: ModelDeploymentSpec | None = None
        self._kept: ModelDeploymentSpec | None = None

    async def remember(self, spec: ModelDeploymentSpec, sibling: Mapping[str, Any]) -> None:
        """`sibling`: metadata of another child, for owner and labels. Raises ApiError."""
        if self._kept is None:
            await self.recall()
        self.spec = spec
        if spec == self._kept:
            return
        manifest = {
            "apiVersion": SECRET.api_version,
            "kind": SECRET.name,
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                # Not the label by which children are watched: nobody has to hold it in memory.
                "labels": {k: v for k, v in sibling["labels"].items() if k != labels.MODELDEPLOYMENT},
                "ownerReferences": sibling["ownerReferences"],
            },
            "type": "coalmine.dev/spec",
            "data": {FILE: base64.b64encode(to_json(spec)).decode()},
        }
        await self._applier.put(SECRET, manifest, None)
        self._kept = spec

    async def recall(self) -> ModelDeploymentSpec | None:
        """None where there never was a good one. Raises ApiError."""
        if self.spec is None:
            try:
                secret = await self._client.get(SECRET.path(self._namespace, self._name))
            except ApiError as error:
                if not error.gone:
                    raise
                return None
            owners = secret["metadata"].get("ownerReferences") or ()
            if any(owner["uid"] == self._uid for owner in owners):
                self.spec = self._kept = _read(secret)
        return self.spec


def _read(secret: Mapping[str, Any]) -> ModelDeploymentSpec | None:
    try:
        return spec_from_json(base64.b64decode(secret["data"][FILE], validate=True))
    except (Invalid, KeyError, TypeError, binascii.Error):
        return None  # somebody edited it: as good as none
