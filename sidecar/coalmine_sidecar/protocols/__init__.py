"""Wire formats of model servers: pure functions from the bytes of a request or an answer to what is in it.

None of them raises. What only monitoring needs is not imported here: `inputs` (requests), `columns` (predictions).
"""

from .compare import DISAGREEMENTS, comparable, disagreement
from .detect import extract
from .outputs import EXTRACT_FAILURES, Answer, Column, Value

__all__ = ["DISAGREEMENTS", "EXTRACT_FAILURES", "Answer", "Column", "Value", "comparable", "disagreement", "extract"]
