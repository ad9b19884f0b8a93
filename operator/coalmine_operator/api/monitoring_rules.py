"""What no single field of `spec.monitoring` can say. See `rules`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from coalmine_sidecar.jsonpath import path_problem, steps_of
from coalmine_sidecar.monitoring import (
    DEFAULT_SCORE_EDGES,
    FEATURE_SERIES,
    LABELLED_SERIES,
    OTHER_SERIES,
    SLICE_SERIES,
)

from .checks import CONTROL, Found, object_name, token, unique
from .monitoring import (
    Alerts,
    BaselineRef,
    Drift,
    Feature,
    Feedback,
    Monitoring,
    Output,
    PayloadLog,
    Prediction,
    PredictionId,
    Redis,
    SecretKey,
    Slice,
)
from .monitoring_alerts import lacks
from .problems import index_path, show
from .walk import Rule

_REDIS = re.compile(r"redis://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[0-9]{1,4})?")
_REDIS_PORT = re.compile(r":([0-9]+)(?:/[0-9]+)?$")
_HTTP = re.compile(r"https?://[!-~]+")
_URL_PATH = re.compile(r"/[!-~]*")
#: Statistics that never exceed 1, whatever the data.
_SHARES: Final = ("js", "hellinger", "ks")


def monitoring(part: Monitoring) -> Found:
    yield from unique("outputs", "name", [one.name for one in part.outputs])
    yield from unique("features", "name", [one.name for one in part.features])
    yield from unique("slices", "attribute", [one.attribute for one in part.slices])
    if part.task == "binary" and not 0 <= part.prediction.threshold <= 1:
        yield "prediction.threshold", f"{show(part.prediction.threshold)} is no probability: write 0 to 1"
    if part.slices and part.task in ("regression", "text"):
        yield "slices", f"compare who gets a class, and task {part.task} has none: leave them out"
    if part.task == "multiclass":
        for index, one in enumerate(part.slices):
            if one.favourable != part.prediction.positive:
                remedy = "of several classes one is counted: write it as prediction.positive, too"
                yield f"{index_path('slices', index)}.favourable", f"{show(one.favourable)}: {remedy}"
    for index, override in enumerate(part.alerts.overrides):
        if override.enabled is not False and (why := lacks(override.name, part)):
            yield f"{index_path('alerts.overrides', index)}.name", why
    if part.max_series < (least := _least_series(part)):
        one_of = "feature" if part.features else "slice"
        yield "maxSeries", f"{part.max_series} has no room for a single {one_of}: write {least} or more"


def _least_series(part: Monitoring) -> int:
    """Of a revision with one feature or, where none is asked for, one slice; more, where baselines have bins."""
    room = FEATURE_SERIES if part.features else SLICE_SERIES if part.slices else 0
    if not room:
        return 0
    has_truths = part.task in ("binary", "ranking") and part.feedback is not None
    bins = len(DEFAULT_SCORE_EDGES) + 1 if has_truths and part.baseline is None else 0
    return OTHER_SERIES + LABELLED_SERIES * bins + room


def prediction_id(part: PredictionId) -> Found:
    yield from token("header", part.header)


def prediction(part: Prediction) -> Found:
    yield from _path("score", part.score)
    yield from _path("label", part.label)


def output(part: Output) -> Found:
    yield from _label("name", part.name)
    yield from _path("path", part.path)


def feature(part: Feature) -> Found:
    yield from _label("name", part.name)
    yield from _path("path", part.path)


def baseline_ref(part: BaselineRef) -> Found:
    yield from _one_of("configMap", part.config_map, "file", part.file)
    yield from object_name("configMap", part.config_map, "ConfigMap")


def secret_key(part: SecretKey) -> Found:
    yield from object_name("name", part.name, "Secret")


def redis(part: Redis) -> Found:
    if "@" in part.url:
        # Not shown: messages end in logs and in the status.
        yield "url", "names a user or a password: write redis://HOST:PORT/DB, and the Secret in passwordSecret"
    elif not _REDIS.fullmatch(part.url):
        yield "url", f"{show(part.url)} is no address of a Redis: write redis://HOST:PORT/DB"
    elif (found := _REDIS_PORT.search(part.url)) and not 1 <= int(found[1]) <= 65535:
        yield "url", f"{show(part.url)} has a port that is none: write 1 to 65535"


def feedback(part: Feedback) -> Found:
    if not _URL_PATH.fullmatch(part.path) or "#" in part.path or "?" in part.path:
        yield "path", f"{show(part.path)} is no path: begin with / and write what is not ASCII as %XX"
    if part.ttl <= 0:
        yield "ttl", f"{part.ttl} is not over 0s"
    if part.path == "/":
        yield "path", '"/" would take what is for the model: write another one, such as /feedback'


def slice_(part: Slice) -> Found:
    yield from _label("attribute", part.attribute)
    yield from _one_of("path", part.path, "header", part.header)
    yield from _path("path", part.path)
    if part.header:
        yield from token("header", part.header)


def drift(part: Drift) -> Found:
    if part.warn > part.critical:
        yield "warn", f"{show(part.warn)} is over critical, {show(part.critical)}: a warning comes first"
    if part.statistic in _SHARES and part.critical >= 1:
        yield "critical", f"{show(part.critical)} never fires: {part.statistic} is at most 1"
    if part.window <= 0:
        yield "window", f"{part.window} is not over 0s"
    elif part.average_run_length < part.window:
        yield "averageRunLength", f"{part.average_run_length} is under the window of {part.window}"


def alerts(part: Alerts) -> Found:
    yield from unique("overrides", "name", [one.name for one in part.overrides])
    for index, one in enumerate(part.overrides):
        if part.defaults and (one.threshold, one.for_, one.action, one.enabled) == (None,) * 4:
            yield index_path("overrides", index), "changes nothing: give threshold, for, action or enabled"


def payload_log(part: PayloadLog) -> Found:
    yield from _one_of("url", part.url, "file", part.file)
    if "@" in part.url:
        yield "url", "names a user or a password: leave it out, for a spec is no secret"
    elif part.url and not _HTTP.fullmatch(part.url):
        yield "url", f"{show(part.url)} is no URL: write http://HOST:PORT/PATH"
    if part.file.endswith(("/", "/.", "/..")) or part.file in (".", ".."):
        yield "file", f"{show(part.file)} is a folder: write a file's name, such as payloads.jsonl"
    for index, path in enumerate(part.redact):
        yield from _json_path(index_path("redact", index), path)


MONITORING_RULES: Final[Mapping[type, Rule]] = {
    Alerts: alerts,
    BaselineRef: baseline_ref,
    Drift: drift,
    Feature: feature,
    Feedback: feedback,
    Monitoring: monitoring,
    Output: output,
    PayloadLog: payload_log,
    Prediction: prediction,
    PredictionId: prediction_id,
    Redis: redis,
    SecretKey: secret_key,
    Slice: slice_,
}


def _one_of(name: str, value: str, other: str, other_value: str) -> Found:
    if bool(value) == bool(other_value):
        yield "", f"give a {name} or a {other}, one of them"


def _label(path: str, name: str) -> Found:
    if CONTROL.search(name):
        yield path, f"{show(name)} holds a control character: it is a label of metrics"


def _path(where: str, path: str) -> Found:
    if problem := path_problem(path):
        yield where, show(path) + problem.removeprefix(f"path {path!r}")


def _json_path(where: str, path: str) -> Found:
    """Bodies are documents, so there are no columns, and `[*]` stands for all elements of any list."""
    try:
        steps_of(path)
    except ValueError as error:
        yield where, show(path) + str(error).removeprefix(f"path {path!r}")
