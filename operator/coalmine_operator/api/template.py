"""Reading a pod template: which of its containers serves the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: The container of this name serves the model; where there is none, the first one does.
MODEL_CONTAINER: Final = "model"


def model_container(template: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
    """Index and text of the model's container, of a template that `decode` let through."""
    containers = template["spec"]["containers"]
    for index, container in enumerate(containers):
        if container["name"] == MODEL_CONTAINER:
            return index, container
    return 0, containers[0]
