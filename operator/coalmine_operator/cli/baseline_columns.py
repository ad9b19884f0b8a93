"""Which columns of recorded exchanges a baseline is made of: those of most, however a few others look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

#: Columns of fewer than one exchange in so many are not what a model is asked, or answers.
_RARE = 10


def usual(forms: Counter[tuple[str, ...]], asked: Collection[str]) -> tuple[list[str], list[str]]:
    """Columns that are a model's, and those of odd exchanges, which have none of them.

    `forms`: how often exchanges have these columns; `()`: none that can be read. `asked`: columns that are no oddity.
    What stands beside a usual column is usual, however rare: a key may be optional. Where the odd are the half, no
    exchange is.
    """
    found: Counter[str] = Counter()
    for form, count in forms.items():
        found.update(dict.fromkeys(form, count))
    common = {name for name, count in found.items() if count * _RARE >= forms.total()} | {*asked}
    odd = [form for form in forms if form and common.isdisjoint(form)]
    if 2 * sum(forms[form] for form in odd) >= forms.total():
        odd = []
    columns = dict.fromkeys(name for form in forms if form not in odd for name in form)
    others = dict.fromkeys(name for form in odd for name in form if name not in columns)
    return [*columns], [*others]
