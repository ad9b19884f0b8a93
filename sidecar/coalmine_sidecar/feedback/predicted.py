"""What is kept of a prediction until its label comes."""

from __future__ import annotations

from msgspec import Struct


class Predicted(Struct, array_like=True):
    """The rows of one request that was answered. Columns: `scores` and `labels` have a value for each row.

    `at`: Unix seconds. `scores`: of a binary model the probability of the positive class, of a regression the number;
    None where it is absent or not finite. `labels`: the class that the model chose, as `labels.class_text` writes it;
    None: the threshold says. `groups`: a column for each of `Monitoring.slices`, in their order, with a value for each
    row, or a single one for all of them; empty: the row says none.
    """

    id: str
    revision: str
    at: float
    scores: list[float | None]
    labels: list[str | None]
    groups: list[list[str]] = []

    @property
    def rows(self) -> int:
        return len(self.scores)
