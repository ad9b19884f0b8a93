"""The warm-up of a spec as its sidecar is told of it."""

from __future__ import annotations

from coalmine_sidecar import contract

from .spec import Model


def warmup_text(model: Model) -> str:
    """The value of the sidecar's `--warmup`; empty where there is none."""
    return contract.encode_warmup(
        tuple(
            contract.WarmupRequest(
                path=one.path,
                method=one.method,
                headers=tuple(contract.HeaderMatch(name=header.name, value=header.value) for header in one.headers),
                body=one.body,
                body_base64=one.body_base64,
                repeat=one.repeat,
                timeout=float(one.timeout),
                status=one.status,
            )
            for one in model.warmup
        )
    )
