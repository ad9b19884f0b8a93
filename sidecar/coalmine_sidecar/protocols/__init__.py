"""Wire formats of model servers: pure functions from the bytes of a request or an answer to what is in it.

None of them raises.
"""

from .columns import column_of, prediction_id, wanted_of_answers
from .compare import DISAGREEMENTS, comparable, disagreement
from .detect import extract
from .inputs import read_request
from .outputs import EXTRACT_FAILURES, Answer, Column, Value
from .wanted import REQUEST_FAILURES, Asked, Wanted

__all__ = [
    "DISAGREEMENTS",
    "EXTRACT_FAILURES",
    "REQUEST_FAILURES",
    "Answer",
    "Asked",
    "Column",
    "Value",
    "Wanted",
    "column_of",
    "comparable",
    "disagreement",
    "extract",
    "prediction_id",
    "read_request",
    "wanted_of_answers",
]
