"""Records about groups of rows: rates of each with 95 % intervals, and how far groups are apart.

Definitions as fairlearn has them (fairlearn.org, user guide: common fairness metrics): demographic parity compares
selection rates, equalized odds the worse of true- and false-positive rates; differences are largest less smallest,
ratios smallest by largest. A rate of fewer rows than `min_samples` is nobody's: it would be noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .parameters import Parameters, SliceRules
from .promql import VERSION, Z95, Rule, Scope, number, quoted, wilson

_GROUP: Final = f"{VERSION}, attribute, group"
_BY: Final = f"{VERSION}, attribute"
#: Of labelled rows: what is counted, among which. `1` is the positive class.
_OF_LABELS: Final = {
    "tpr": ('actual="1", predicted="1"', 'actual="1"'),
    "fpr": ('actual="0", predicted="1"', 'actual="0"'),
    "precision": ('actual="1", predicted="1"', 'predicted="1"'),
}
#: Groups of those who are not named.
_NO_GROUPS: Final = 'group!~"_missing|_other"'


def fairness_records(scope: Scope, parameters: Parameters) -> Iterator[Rule]:
    if not parameters.slices:
        return
    yield from _counts(scope, parameters)
    hits, trials = (scope.recorded(f"coalmine:slice_{name}:increase", f"{_GROUP}, rate") for name in ("hits", "trials"))
    yield scope.record("coalmine:slice:rate", f"{hits}\n/ ({trials} > 0)")
    yield scope.record("coalmine:slice:lower", wilson(hits, trials, "-"))
    yield scope.record("coalmine:slice:upper", wilson(hits, trials, "+"))
    by = f"{_BY}, rate"
    rates = scope.own("coalmine:slice:rate", _NO_GROUPS)
    most, least = f"max by ({by}) ({rates})", f"min by ({by}) ({rates})"
    several = f"and count by ({by}) ({rates}) > 1"
    yield scope.record("coalmine:slice_rate:difference", f"({most}\n- {least})\n{several}")
    yield scope.record("coalmine:slice_rate:ratio", f"({least}\n/ ({most} > 0))\n{several}")
    selection, odds = 'rate="selection"', 'rate=~"tpr|fpr"'
    for figure, worst in (("difference", "max"), ("ratio", "min")):
        name = f"coalmine:slice_rate:{figure}"
        yield scope.record(f"coalmine:demographic_parity:{figure}", scope.recorded(name, _BY, selection))
        if parameters.feedback:
            yield scope.record(f"coalmine:equalized_odds:{figure}", f"{worst} by ({_BY}) ({scope.own(name, odds)})")
    yield from _impact(scope, parameters)


def _counts(scope: Scope, parameters: Parameters) -> Iterator[Rule]:
    """What each rate is a share of, where that is enough. An attribute's own minimum and outcome are its own part."""
    for rate in ("selection", *(_OF_LABELS if parameters.feedback else ())):
        parts = [_rate(scope, one, rate) for one in parameters.slices]
        yield scope.record("coalmine:slice_hits:increase", "\nor ".join(hits for hits, _ in parts), rate=rate)
        yield scope.record("coalmine:slice_trials:increase", "\nor ".join(trials for _, trials in parts), rate=rate)


def _rate(scope: Scope, one: SliceRules, rate: str) -> tuple[str, str]:
    counter = "coalmine_slice_labels_total" if rate in _OF_LABELS else "coalmine_slice_predictions_total"
    hit, among = _OF_LABELS.get(rate, (f'predicted="{one.favourable}"', 'predicted=~"0|1"'))
    attribute = f"attribute={quoted(one.attribute)}"
    hits, trials = (scope.increase(counter, _GROUP, f"{attribute}, {which}") for which in (hit, among))
    enough = f"{trials} >= {one.min_samples}"
    return f"(({hits}\nor 0 * {trials})\nand {enough})", f"({enough})"


def _impact(scope: Scope, parameters: Parameters) -> Iterator[Rule]:
    """Selection rates by that of the privileged group, or of the one that fares best: under 0.8 is the four-fifths rule
    of the EEOC's Uniform Guidelines, 29 CFR 1607.4(D). The interval is normal in the ratio's logarithm, whose variance
    is (1 - p) / (n p) of either group (Katz et al., Biometrics 34, 1978)."""
    selection = f'rate="selection", {_NO_GROUPS}'
    rate = scope.recorded("coalmine:slice:rate", _GROUP, selection)
    trials = scope.recorded("coalmine:slice_trials:increase", _GROUP, selection)
    chosen = "\nor ".join(_reference(scope, one, selection) for one in parameters.slices)
    reference = f"(({chosen}) > 0)"
    yield scope.record(
        "coalmine:disparate_impact:ratio", f"({rate}\n/ on ({_BY}) group_left () {reference})\nunless ({chosen})"
    )
    ratio = scope.recorded("coalmine:disparate_impact:ratio", _GROUP)
    own = f"(1 - {rate}) / ({rate} * {trials} > 0)"
    other = f"(1 - {reference}) / ({reference} * {trials})"
    stderr = f"sqrt({own}\n+ on ({_BY}) group_left () {other})"
    for bound, sign in (("lower", "-"), ("upper", "+")):
        yield scope.record(f"coalmine:disparate_impact:{bound}", f"{ratio}\n* exp({sign}{number(Z95)} * {stderr})")


def _reference(scope: Scope, one: SliceRules, selection: str) -> str:
    where = f"{selection}, attribute={quoted(one.attribute)}"
    if one.privileged:
        return scope.recorded("coalmine:slice:rate", _GROUP, f"{where}, group={quoted(one.privileged)}")
    return f"topk by ({_BY}) (1, {scope.recorded('coalmine:slice:rate', _GROUP, where)})"
