"""Records about how good predictions were, by labels that came later (`truth="label"`), and how good they probably
are without (`truth="estimate"`, CBPE: a calibrated score is the chance of being right)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .parameters import Parameters
from .promql import VERSION, Z95, Rule, Scope, number, ratio, wilson

TRUTHS: Final = ("label", "estimate")
_BY: Final = f"{VERSION}, truth"
#: Metrics of which labels' and estimates' figures are compared.
ESTIMATED: Final = ("auc", "accuracy", "precision", "recall", "f1")


def performance_records(scope: Scope, parameters: Parameters) -> Iterator[Rule]:
    task = parameters.task
    if not _truths(parameters):
        return
    if task in ("binary", "multiclass"):
        yield from _confusion(scope, parameters)
    if task in ("binary", "ranking"):
        yield from _curves(scope, parameters)
    if not parameters.feedback:
        return
    if task == "binary":
        yield from _probabilities(scope)
        yield from _concept_drift(scope)
    if task == "regression":
        yield from _errors(scope)


def label_records(scope: Scope) -> Iterator[Rule]:
    """How many labels, how late, and what came of predictions. Labels of a window are mostly of older predictions."""
    labels = scope.increase("coalmine_labels_total")
    predictions = scope.increase("coalmine_predictions_total")
    yield scope.record("coalmine:labels:increase", labels)
    yield scope.record("coalmine:labels:coverage", ratio(labels, predictions))
    delays = f"sum by ({VERSION}, le) (rate({scope.raw('coalmine_label_delay_seconds_bucket')}[{scope.window}]))"
    yield scope.record("coalmine:label_delay_seconds:median", f"histogram_quantile(0.5, {delays}) >= 0")
    by = f"{VERSION}, outcome"
    counted = scope.increase("coalmine_outcome_count_total", by)
    yield scope.record("coalmine:outcome:increase", counted)
    # A counter only grows: what is lost has one of its own.
    gained, lost = (scope.increase(f"coalmine_outcome_{sign}sum_total", by) for sign in ("", "negative_"))
    yield scope.record("coalmine:outcome:mean", ratio(f"({gained} - {lost})", counted))


def _truths(parameters: Parameters) -> tuple[str, ...]:
    """Only a binary model's score is a probability to estimate by; labels need somebody who sends them."""
    estimate = TRUTHS[1:] if parameters.task == "binary" else ()
    return (TRUTHS[:1] if parameters.feedback else ()) + estimate


def _confusion(scope: Scope, parameters: Parameters) -> Iterator[Rule]:
    cells = f"{VERSION}, actual, predicted"
    for truth in _truths(parameters):
        name = "coalmine_confusion_total" if truth == "label" else "coalmine_confusion_estimated_total"
        yield scope.record("coalmine:confusion:increase", scope.increase(name, cells), truth=truth)
    own = scope.own("coalmine:confusion:increase")
    actual, predicted = (f'label_replace({own}, "class", "$1", "{side}", "(.*)")' for side in ("actual", "predicted"))
    by = f"{_BY}, class"
    # A class may be only in the one or the other: each of the three counts has every class.
    counts = {
        "actual": f"sum by ({by}) ({actual})",
        "predicted": f"sum by ({by}) ({predicted})",
        "correct": f"sum by ({by}) ({actual} and {predicted})",
    }
    for name, counted in counts.items():
        others = "\nor ".join(f"0 * {other}" for key, other in counts.items() if key not in (name, "correct"))
        yield scope.record(f"coalmine:class_{name}:increase", f"{counted}\nor {others}")
    support, chosen, correct = (
        scope.recorded(f"coalmine:class_{name}:increase", by) for name in ("actual", "predicted", "correct")
    )
    rows = f"sum by ({_BY}) ({support})"
    yield scope.record("coalmine:accuracy:ratio", ratio(f"sum by ({_BY}) ({correct})", rows))
    figures = {
        "precision": ratio(correct, chosen),
        "recall": ratio(correct, support),
        "f1": f"2 * {correct}\n/ ({support} + {chosen} > 0)",
    }
    for metric, expr in figures.items():
        yield scope.record(f"coalmine:{metric}:class", expr)
        each = scope.recorded(f"coalmine:{metric}:class", by)
        # What is undefined (no prediction of a class, no row of it) counts as 0, as with scikit-learn.
        macro = f"sum by ({_BY}) ({each})\n/ count by ({_BY}) ({support} + {chosen} > 0)"
        yield scope.record(f"coalmine:{metric}:macro", macro)
        yield scope.record(f"coalmine:{metric}:weighted", f"sum by ({_BY}) ({each} * {support})\n/ ({rows} > 0)")
        headline = f"{scope.own(f'coalmine:{metric}:class', _positive())}" if parameters.task == "binary" else ""
        yield scope.record(
            f"coalmine:{metric}:ratio",
            f"sum by ({_BY}) ({headline})" if headline else scope.recorded(f"coalmine:{metric}:macro", _BY),
        )
    if parameters.feedback:
        yield from _intervals(scope, parameters)


def _positive() -> str:
    return 'class="1"'


def _intervals(scope: Scope, parameters: Parameters) -> Iterator[Rule]:
    """95 % intervals of what are shares of labelled rows."""
    more = 'truth="label"'
    hits = scope.recorded("coalmine:class_correct:increase", _BY, more)
    trials = {"accuracy": scope.recorded("coalmine:class_actual:increase", _BY, more)}
    yield from _interval(scope, "accuracy", hits, trials["accuracy"])
    if parameters.task == "binary":
        more = f"{more}, {_positive()}"
        hits = scope.recorded("coalmine:class_correct:increase", _BY, more)
        for metric, count in (("precision", "predicted"), ("recall", "actual")):
            yield from _interval(scope, metric, hits, scope.recorded(f"coalmine:class_{count}:increase", _BY, more))


def _interval(scope: Scope, metric: str, hits: str, trials: str) -> Iterator[Rule]:
    yield scope.record(f"coalmine:{metric}:lower", wilson(hits, trials, "-"))
    yield scope.record(f"coalmine:{metric}:upper", wilson(hits, trials, "+"))


def _curves(scope: Scope, parameters: Parameters) -> Iterator[Rule]:
    """ROC-AUC as Mann and Whitney's statistic of the score's bins, ties half; average precision as scikit-learn's."""
    cells = f"{VERSION}, class, bin"
    for truth in _truths(parameters):
        more = f'truth="{truth}"'
        for name in ("score", "score_from"):
            counted = scope.increase(f"coalmine_{name}_total", cells, more)
            yield scope.record(f"coalmine:{name}:increase", counted, truth=truth)
    by, bins = _BY, f"{_BY}, bin"
    in_bin = {c: scope.recorded("coalmine:score:increase", bins, f'class="{c}"') for c in "01"}
    above = {c: scope.recorded("coalmine:score_from:increase", bins, f'class="{c}"') for c in "01"}
    for c, name in (("1", "positives"), ("0", "negatives")):
        yield scope.record(
            f"coalmine:score_{name}:increase", scope.recorded("coalmine:score:increase", by, f'class="{c}"')
        )
    positives, negatives = (scope.recorded(f"coalmine:score_{n}:increase", by) for n in ("positives", "negatives"))
    # The share of negatives below each bin, those in it half.
    below = f"(({in_bin['0']} / 2 - {above['0']})\n/ on ({by}) group_left () ({negatives} > 0) + 1)"
    yield scope.record("coalmine:auc:ratio", f"sum by ({by}) ({in_bin['1']} * {below})\n/ ({positives} > 0)")
    chosen = f"({above['1']} + {above['0']} > 0)"
    yield scope.record(
        "coalmine:average_precision:ratio",
        f"sum by ({by}) ({in_bin['1']} * {above['1']}\n/ {chosen})\n/ ({positives} > 0)",
    )
    if parameters.feedback:
        yield from _auc_interval(scope, below)


def _auc_interval(scope: Scope, below: str) -> Iterator[Rule]:
    """DeLong's standard error (Biometrics 44, 1988): the spread of the placements of positives and of negatives."""
    by, bins = _BY, f"{_BY}, bin"
    label = 'truth="label"'
    in_bin = {c: scope.recorded("coalmine:score:increase", bins, f'class="{c}", {label}') for c in "01"}
    above = scope.recorded("coalmine:score_from:increase", bins, f'class="1", {label}')
    positives, negatives = (
        scope.recorded(f"coalmine:score_{name}:increase", by, label) for name in ("positives", "negatives")
    )
    auc = scope.recorded("coalmine:auc:ratio", by, label)
    over = f"(({above} - {in_bin['1']} / 2)\n/ on ({by}) group_left () ({positives} > 0))"
    parts = [
        f"sum by ({by}) ({counted} * ({placed} - on ({by}) group_left () {auc}) ^ 2)\n/ (({size} > 1) - 1) / {size}"
        for counted, placed, size in ((in_bin["1"], below, positives), (in_bin["0"], over, negatives))
    ]
    yield scope.record("coalmine:auc:stderr", f"sqrt({parts[0]}\n+ {parts[1]})")
    stderr = scope.recorded("coalmine:auc:stderr", by, label)
    for bound, sign in (("lower", "-"), ("upper", "+")):
        yield scope.record(f"coalmine:auc:{bound}", f"{auc} {sign} {number(Z95)} * {stderr}")


def _probabilities(scope: Scope) -> Iterator[Rule]:
    deciles = {of: scope.increase("coalmine_calibration_total", f"{VERSION}, decile", f'of="{of}"')
               for of in ("score", "positive")}  # fmt: skip
    scored = scope.increase("coalmine_labels_scored_total")
    yield scope.record(
        "coalmine:calibration_error:ratio",
        ratio(f"sum by ({VERSION}) (abs({deciles['score']} - {deciles['positive']}))", scored),
    )
    yield scope.record("coalmine:log_loss:mean", ratio(scope.increase("coalmine_label_log_loss_total"), scored))
    yield scope.record("coalmine:brier:mean", ratio(scope.increase("coalmine_label_squared_error_total"), scored))


def _concept_drift(scope: Scope) -> Iterator[Rule]:
    """What the scores promise less what came true: data that only moved is in both, a changed world is not."""
    for metric in ESTIMATED:
        estimate, label = (scope.recorded(f"coalmine:{metric}:ratio", VERSION, f'truth="{t}"') for t in TRUTHS[::-1])
        yield scope.record("coalmine:concept_drift:difference", f"{estimate}\n- {label}", metric=metric)


def _errors(scope: Scope) -> Iterator[Rule]:
    rows = scope.increase("coalmine_labels_scored_total")
    squares = scope.increase("coalmine_label_squared_error_total")
    yield scope.record("coalmine:mae:mean", ratio(scope.increase("coalmine_label_absolute_error_total"), rows))
    yield scope.record("coalmine:rmse:mean", f"sqrt({ratio(squares, rows)})")
    above, below = (
        scope.increase("coalmine_label_deviation_total", VERSION, f'sign="{s}"') for s in ("above", "below")
    )
    spread = scope.increase("coalmine_label_squared_deviation_total")
    yield scope.record("coalmine:r2:ratio", f"1 - {squares}\n/ ({spread} - ({above} - {below}) ^ 2 / ({rows} > 0) > 0)")
