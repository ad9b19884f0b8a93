"""Alerts about how good predictions are, by labels and without, and how evenly that is among groups of people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .alerts import SHARE, VALUE, WHO, Alert
from .parameters import Parameters
from .promql import VERSION, Scope, number

#: Labelled rows of a window under which a figure is an anecdote.
FEW_LABELS: Final = 200
#: An expected calibration error is never 0: of n rows in ten bins it is about sqrt(10 p (1 - p) / n).
_FEW_FOR_CALIBRATION: Final = 2000
_LABEL: Final = 'truth="label"'
_ESTIMATE: Final = 'truth="estimate"'
#: Standard errors that a difference must exceed.
_SIGMAS: Final = 3


def quality_alerts(scope: Scope, parameters: Parameters) -> Iterator[Alert]:
    task = parameters.task
    if task in ("binary", "multiclass") and parameters.feedback:
        yield from _drops(scope, parameters)
    if task in ("binary", "ranking") and parameters.feedback:
        yield _auc(scope)
    if task == "binary":
        yield _estimated(scope, parameters)
        if parameters.feedback:
            yield _concept(scope)
            yield _calibration(scope)
    if task == "regression" and parameters.feedback:
        yield _errors(scope)
    if parameters.feedback:
        yield from _feedback(scope, parameters)


def fairness_alerts(scope: Scope, parameters: Parameters) -> Iterator[Alert]:
    if not parameters.slices:
        return
    by = f"{VERSION}, attribute, group"
    impact, upper = (scope.recorded(f"coalmine:disparate_impact:{name}", by) for name in ("ratio", "upper"))
    yield Alert(
        name="DisparateImpact",
        expr=lambda share: f"{impact} < {number(share)}\nand {upper} < 1",
        threshold=0.8,
        hold=3600,
        action="hold",
        summary=f"{WHO}: group {{{{ $labels.group }}}} of {{{{ $labels.attribute }}}} gets the favourable answer "
        f"{SHARE} as often as the best or privileged group, under PERCENT",
        description="The four-fifths rule; chance alone is ruled out at 95 %. coalmine:slice:rate has each group's "
        "rate.",
    )
    if parameters.feedback:
        odds = scope.recorded("coalmine:equalized_odds:difference", f"{VERSION}, attribute")
        yield Alert(
            name="EqualizedOdds",
            expr=lambda gap: f"{odds} > {number(gap)}",
            threshold=0.2,
            hold=3600,
            action="none",
            summary=f"{WHO}: true- or false-positive rates of groups of {{{{ $labels.attribute }}}} are {VALUE} apart, "
            "over THRESHOLD",
            description="coalmine:slice:rate has each group's rates, coalmine:slice:lower and :upper their intervals.",
        )


def _usual(scope: Scope, metric: str) -> str:
    return scope.gauge("coalmine_baseline_performance", VERSION, f'metric="{metric}"')


def _enough(scope: Scope, rows: int = FEW_LABELS) -> str:
    return f"and {scope.recorded('coalmine:labels:increase')} >= {rows}"


def _drops(scope: Scope, parameters: Parameters) -> Iterator[Alert]:
    for metric, name, with_interval in (
        ("accuracy", "AccuracyDrop", True),
        ("precision", "PrecisionDrop", parameters.task == "binary"),
        ("recall", "RecallDrop", parameters.task == "binary"),
        ("f1", "F1Drop", False),
    ):
        yield _drop(scope, metric, name, with_interval=with_interval)


def _drop(scope: Scope, metric: str, name: str, *, with_interval: bool) -> Alert:
    now, usual = scope.recorded(f"coalmine:{metric}:ratio", VERSION, _LABEL), _usual(scope, metric)
    sure = f"\nand {scope.recorded(f'coalmine:{metric}:upper', VERSION)} < {usual}" if with_interval else ""
    return Alert(
        name=name,
        expr=lambda drop: f"1 - {now} / ({usual} > 0) > {number(drop)}{sure}\n{_enough(scope)}",
        threshold=0.1,
        hold=900,
        action="rollback",
        summary=f"{WHO}: {metric} is {SHARE} lower than in its baseline, by the labels that came",
        description="Over PERCENT. coalmine:labels:coverage tells of how many predictions that is known.",
    )


def _auc(scope: Scope) -> Alert:
    upper = scope.recorded("coalmine:auc:upper")
    return Alert(
        name="AucDrop",
        expr=lambda drop: f"{_usual(scope, 'auc')} - {upper} > {number(drop)}\n{_enough(scope)}",
        threshold=0.02,
        hold=900,
        action="rollback",
        summary=f"{WHO}: ROC-AUC is at least {VALUE} lower than in its baseline, by the labels that came",
        description="Over THRESHOLD, by the upper end of its 95 % interval.",
    )


def _estimated(scope: Scope, parameters: Parameters) -> Alert:
    now = scope.recorded("coalmine:auc:ratio", VERSION, _ESTIMATE)
    rows = " + ".join(
        scope.recorded(f"coalmine:score_{name}:increase", VERSION, _ESTIMATE) for name in ("positives", "negatives")
    )
    sigma = scope.gauge("coalmine_baseline_performance_stddev", VERSION, 'metric="auc"')
    # Of the reference's chunks; fewer rows spread more.
    sigma = f"({sigma} > 0) * clamp_min(sqrt({parameters.chunk_rows} / ({rows} > 0)), 1)"
    return Alert(
        name="EstimatedPerformanceDrop",
        expr=lambda sigmas: (
            f"({_usual(scope, 'auc')} - {now}) / ({sigma}) > {number(sigmas)}\nand {rows} >= {FEW_LABELS}"
        ),
        threshold=3.0,
        hold=1800,
        action="hold",
        summary=f"{WHO}: ROC-AUC, estimated without labels, is {VALUE} standard deviations under its baseline's",
        description="Over THRESHOLD, which is outside what the baseline's own chunks did. Wait for labels, or look at "
        "the drift of features.",
    )


def _concept(scope: Scope) -> Alert:
    gap = scope.recorded("coalmine:concept_drift:difference", VERSION, 'metric="auc"')
    stderr = scope.recorded("coalmine:auc:stderr")
    return Alert(
        name="ConceptDrift",
        expr=lambda least: f"{gap} > {number(least)}\nand {gap} > {_SIGMAS} * {stderr}\n{_enough(scope)}",
        threshold=0.02,
        hold=1800,
        action="rollback",
        summary=f"{WHO}: ROC-AUC by labels is {VALUE} lower than its scores promise",
        description="Over THRESHOLD and three standard errors: what features mean has changed, not only how often they "
        "come. Such a model has to be trained anew.",
    )


def _calibration(scope: Scope) -> Alert:
    now = scope.recorded("coalmine:calibration_error:ratio")
    return Alert(
        name="Miscalibrated",
        expr=lambda more: f"{now} - {_usual(scope, 'ece')} > {number(more)}\n{_enough(scope, _FEW_FOR_CALIBRATION)}",
        threshold=0.05,
        hold=3600,
        action="none",
        summary=f"{WHO}: scores are {VALUE} further from what comes true than in its baseline",
        description="Expected calibration error of ten bins, over THRESHOLD. Thresholds on the score mean something "
        "else now.",
    )


def _errors(scope: Scope) -> Alert:
    now = scope.recorded("coalmine:rmse:mean")
    return Alert(
        name="ErrorRise",
        expr=lambda more: f"{now} / ({_usual(scope, 'rmse')} > 0) - 1 > {number(more)}\n{_enough(scope)}",
        threshold=0.1,
        hold=900,
        action="rollback",
        summary=f"{WHO}: the root of the mean squared error is {SHARE} higher than in its baseline",
        description="Over PERCENT, by the labels that came.",
    )


def _feedback(scope: Scope, parameters: Parameters) -> Iterator[Alert]:
    joined = scope.increase("coalmine_labels_total", "model", window="1d")
    predicted = f"sum by (model) (increase({scope.raw('coalmine_predictions_total')}[1d] offset 1d))"
    yield Alert(
        name="FeedbackStalled",
        expr=lambda share: f"({joined} or 0 * {predicted}) / ({predicted} >= {FEW_LABELS}) < {number(share)}",
        threshold=round(parameters.expected_coverage / 3, 4),
        hold=3600,
        action="hold",
        summary=f"{{{{ $labels.model }}}}: labels of a day came for {SHARE} of the predictions of the day before, "
        "under PERCENT",
        description=f"{100 * parameters.expected_coverage:g} % are expected. coalmine_feedback_total tells what became "
        "of those that came.",
        retired=True,
    )
    by = f"{VERSION}, outcome"
    mean = scope.recorded("coalmine:outcome:mean", by)
    before = f"sum by ({by}) ({scope.own('coalmine:outcome:mean')} offset 1w)"
    yield Alert(
        name="OutcomeDrop",
        expr=lambda drop: (
            f"1 - {mean} / ({before} > 0) > {number(drop)}\n"
            f"and {scope.recorded('coalmine:outcome:increase', by)} >= {FEW_LABELS}"
        ),
        threshold=0.2,
        hold=3600,
        action="none",
        summary=f"{WHO}: outcome {{{{ $labels.outcome }}}} is {SHARE} lower than a week ago",
        description="Over PERCENT, in the mean of those predictions of which an outcome came.",
    )
