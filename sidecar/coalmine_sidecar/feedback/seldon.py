"""Seldon's `Feedback` message, as its clients post it to `/api/v0.1/feedback`."""

from __future__ import annotations

from typing import Any, Final

#: Marks an entry that was Seldon's, so that what is wrong with it is called by its name.
PUID: Final = "puid"


def wrote(entry: object) -> bool:
    return isinstance(entry, dict) and "response" in entry and "predictionId" not in entry


def plain(entry: dict[str, Any]) -> dict[str, Any]:
    """As an entry of ours: response.meta.puid is the prediction's id, truth a SeldonMessage, reward an outcome.

    Its writers send a reward of 0 where nobody gave one, so that one is an outcome only if there is no truth.
    """
    response = entry["response"]
    meta = response.get("meta") if isinstance(response, dict) else None
    puid = meta.get("puid") if isinstance(meta, dict) else None
    ours: dict[str, Any] = {"predictionId": puid, PUID: puid}
    labels = _truth(entry.get("truth"))
    if labels is not None:
        ours["labels"] = labels
    reward = entry.get("reward")
    if reward is not None and (labels is None or reward != 0):
        ours |= {"outcome": "reward", "value": reward}
    return ours


def _truth(truth: object) -> list[Any] | None:
    if not isinstance(truth, dict):
        return None
    data = truth.get("data")
    if isinstance(data, dict):
        tensor = data.get("tensor")
        values = tensor.get("values") if isinstance(tensor, dict) else data.get("ndarray")
    else:
        values = truth.get("jsonData", truth.get("strData"))
    if values is None:
        return None
    rows = values if isinstance(values, list) else [values]
    return [row[0] if isinstance(row, list) and len(row) == 1 else row for row in rows]
