"""What tests measure beside what they assert: told at the end of the run, by whichever worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pytest

#: Tells one figure, in words.
Figure = Callable[[str], None]

_NAME = "figure"


def teller(record_property: Callable[[str, object], None]) -> Figure:
    return lambda text: record_property(_NAME, text)


def told(reports: Iterable[pytest.TestReport]) -> Iterator[str]:
    for report in reports:
        if report.when == "call":
            yield from (str(value) for name, value in report.user_properties if name == _NAME)
