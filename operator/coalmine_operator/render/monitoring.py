"""`spec.monitoring` as the routing file tells it, with the bins of each revision's own baseline."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from coalmine_sidecar import monitoring as contract

from ..api.baseline import for_sidecar
from ..api.monitoring import Feedback, Monitoring, PayloadLog, SecretKey
from ..api.problems import Problem, show
from ..api.spec import ModelDeploymentSpec
from ..engine.baselines import with_bins
from ..engine.model import BaselineState

#: Where a sidecar finds the password of its Redis.
REDIS_PASSWORD: Final = "COALMINE_REDIS_PASSWORD"  # noqa: S105 - the name of a variable
#: Bytes of all baselines together. They are in the routing file, and so in a Secret, which has at most a megabyte; two
#: hundred features of ten bins take a sixth of it.
MAX_BASELINES: Final = 256 << 10


def render_monitoring(
    monitoring: Monitoring | None,
    revisions: Iterable[str],
    baselines: Mapping[str, BaselineState],
    folder: str = "",
) -> contract.Monitoring | UnsetType:
    """What the sidecars are asked to record; UNSET where nothing is.

    `revisions`: those of the routing file, those that matter most first: where baselines take too much room, the last
    ones go without. `folder`: where paths of files begin, the manifest's own.
    """
    if monitoring is None:
        return UNSET
    prediction = monitoring.prediction
    return contract.Monitoring(
        task=monitoring.task,
        prediction=contract.Prediction(
            score=prediction.score,
            label=prediction.label,
            threshold=prediction.threshold,
            positive=prediction.positive,
        ),
        prediction_id=contract.PredictionId(
            header=monitoring.prediction_id.header, generate=monitoring.prediction_id.generate
        ),
        outputs=tuple(contract.Output(name=one.name, path=one.path) for one in monitoring.outputs),
        features=tuple(contract.Feature(name=one.name, path=one.path, type=one.type) for one in monitoring.features),
        slices=tuple(
            contract.Slice(attribute=one.attribute, path=one.path, header=one.header, privileged=one.privileged)
            for one in monitoring.slices
        ),
        feedback=_feedback(monitoring.feedback),
        payload_log=_payload_log(monitoring.payload_log, folder),
        max_series=monitoring.max_series,
        baselines=_bounded(_baselines(monitoring, revisions, baselines)),
    )


def problems(spec: ModelDeploymentSpec) -> Iterator[Problem]:
    """Files that no sidecar and no operator in a cluster can find."""
    monitoring = spec.monitoring
    if monitoring is None:
        return
    if monitoring.baseline is not None and (file := monitoring.baseline.file):
        path = "spec.monitoring.baseline.file"
        yield Problem(
            path, f"{show(file)} is for `coalmine run` (`coalmine lint --local`): in a cluster give a configMap"
        )
    if monitoring.payload_log is not None and (file := monitoring.payload_log.file):
        path = "spec.monitoring.payloadLog.file"
        yield Problem(path, f"{show(file)} is for `coalmine run`: a sidecar in a cluster has no disk, so give a url")


def ignored(monitoring: Monitoring | None) -> Iterator[str]:
    """What has no effect on this machine, a line each."""
    if monitoring is None:
        return
    baseline = monitoring.baseline
    if baseline is not None and baseline.config_map:
        yield f"spec.monitoring.baseline.configMap: ignored: {baseline.key} is looked for beside the manifest"
    if redis_password(monitoring) is not None:
        yield f"spec.monitoring.feedback.redis.passwordSecret: ignored: give the password in {REDIS_PASSWORD}"


def redis_password(monitoring: Monitoring | None) -> SecretKey | None:
    redis = monitoring.feedback.redis if monitoring is not None and monitoring.feedback is not None else None
    return redis.password_secret if redis is not None else None


def _feedback(feedback: Feedback | None) -> contract.Feedback | None:
    if feedback is None:
        return None
    return contract.Feedback(
        path=feedback.path,
        ttl=float(feedback.ttl),
        max_pending=feedback.max_pending,
        redis=feedback.redis.url if feedback.redis is not None else "",
    )


def _payload_log(log: PayloadLog | None, folder: str) -> contract.PayloadLog | None:
    if log is None:
        return None
    return contract.PayloadLog(
        percent=log.percent,
        url=log.url,
        file=posixpath.join(folder, log.file) if log.file else "",
        redact=log.redact,
        max_bytes=log.max_bytes,
    )


def _baselines(
    monitoring: Monitoring, revisions: Iterable[str], baselines: Mapping[str, BaselineState]
) -> Iterator[tuple[str, contract.Baseline]]:
    """By revision. Of the features those that are watched, as what they are watched as."""
    for revision in dict.fromkeys(revisions):
        state = baselines.get(revision)
        if state is None or state.baseline is None:
            continue
        watched = with_bins(monitoring, state.baseline)
        bins = for_sidecar(state.baseline, state.digest)
        yield revision, replace(bins, features={name: one for name, one in bins.features.items() if name in watched})


def _bounded(baselines: Iterable[tuple[str, contract.Baseline]]) -> dict[str, contract.Baseline]:
    left = MAX_BASELINES
    kept = {}
    for revision, baseline in baselines:
        left -= len(msgspec.json.encode(baseline))
        if left < 0:
            break
        kept[revision] = baseline
    return kept
