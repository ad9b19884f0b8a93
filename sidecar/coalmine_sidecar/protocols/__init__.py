"""Wire formats of model servers: pure functions from the bytes of an answer to its outputs. None of them raises."""

from .compare import DISAGREEMENTS, comparable, disagreement
from .detect import extract
from .outputs import EXTRACT_FAILURES, Answer, Column, Value

__all__ = ["DISAGREEMENTS", "EXTRACT_FAILURES", "Answer", "Column", "Value", "comparable", "disagreement", "extract"]
