"""Counters of what a language model generated; one set for each operation that a revision was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ..families import CounterMetricFamily, HistogramMetricFamily, Metric
from ..protocols.generation import FINISH_REASONS, Generation, Operation
from .counters import Histogram, Series, bump, zeros
from .histograms import add_histogram
from .outputs import OTHER

#: Upper bounds (`le`) as OpenTelemetry's conventions for generative AI advise (opentelemetry.io/docs/specs/semconv).
FIRST_TOKEN: Final[tuple[float, ...]] = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
PER_TOKEN: Final[tuple[float, ...]] = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS: Final = tuple(4.0**k for k in range(14))

#: Who counted the tokens: the server in the answer's `usage`, or we, the pieces of a stream without it.
COUNTED_BY: Final = ("usage", "chunks")
#: `gen_ai.token.type` and who counts it; nobody but the server knows how long a prompt was.
_TOKEN_COUNTS: Final = (("input", "usage"), ("output", "usage"), ("output", "chunks"))


class GenerationCounters:
    """Of one revision and operation. Embeddings have input tokens only."""

    __slots__ = ("errors", "finish_reasons", "first_token", "per_token", "tokens")

    def __init__(self, operation: Operation) -> None:
        generates = operation != "embeddings"
        self.first_token = Histogram(FIRST_TOKEN) if generates else None
        self.per_token = {name: Histogram(PER_TOKEN) for name in COUNTED_BY} if generates else {}
        self.tokens = {key: Histogram(TOKENS) for key in _TOKEN_COUNTS if generates or key[0] == "input"}
        self.finish_reasons = zeros((*FINISH_REASONS, OTHER)) if generates else {}
        #: Errors that stood in a stream in spite of its status 200.
        self.errors = 0

    def began(self, seconds: float) -> None:
        """The first token came so long after the request."""
        if self.first_token is not None:
            self.first_token.observe(seconds)

    def add(self, generation: Generation) -> None:
        """Count a whole answer."""
        if generation.input_tokens is not None:
            self.tokens["input", "usage"].observe(generation.input_tokens)
        if not self.finish_reasons:
            return
        for reason in generation.finish_reasons:
            bump(self.finish_reasons, reason)
        counted_by = "chunks" if generation.output_tokens is None else "usage"
        tokens = generation.chunks if generation.output_tokens is None else generation.output_tokens
        if counted_by == "usage" or generation.chunks:
            self.tokens["output", counted_by].observe(tokens)
        if (seconds := generation.per_token) is not None:
            self.per_token[counted_by].observe(seconds)


def counters_of(series: Series, operation: Operation) -> GenerationCounters:
    """A revision's counters of an operation, made with the first request for it."""
    counters = series.generations.get(operation)
    if counters is None:
        counters = series.generations[operation] = GenerationCounters(operation)
    return counters


_Labels = tuple[str, ...]


def generation_metrics(
    names: _Labels, counted: Sequence[tuple[_Labels, dict[Operation, GenerationCounters]]]
) -> Iterator[Metric]:
    """`names` are the labels that come first, with their values beside each revision's counters.

    OpenTelemetry's names behind our prefix: a server in the same pod that exports these metrics itself (vLLM with its
    own instrumentation) measures from another place, and one name for both would add them up.
    """
    if not any(operations for _, operations in counted):
        return
    rows = [((*labels, operation), c) for labels, operations in counted for operation, c in operations.items()]
    names = (*names, "gen_ai_operation_name")
    first = HistogramMetricFamily(
        "coalmine_gen_ai_server_time_to_first_token_seconds",
        "From a request to the first token of its streamed answer.",
        labels=names,
    )
    each = HistogramMetricFamily(
        "coalmine_gen_ai_server_time_per_output_token_seconds",
        "Of streamed answers that came whole: for each token after the first one.",
        labels=(*names, "counted_by"),
    )
    tokens = HistogramMetricFamily(
        "coalmine_gen_ai_client_token_usage",
        "Tokens of an answer; counted by the server (usage) or by the pieces of its stream (chunks).",
        labels=(*names, "gen_ai_token_type", "counted_by"),
    )
    reasons = CounterMetricFamily(
        "coalmine_gen_ai_finish_reasons", "Why the model ended.", labels=(*names, "gen_ai_response_finish_reason")
    )
    errors = CounterMetricFamily(
        "coalmine_gen_ai_stream_errors", "Errors inside streams that had begun with status 200.", labels=names
    )
    for labels, counters in rows:
        if counters.first_token is not None:
            add_histogram(first, labels, counters.first_token)
        for counted_by, histogram in counters.per_token.items():
            add_histogram(each, (*labels, counted_by), histogram)
        for (kind, counted_by), histogram in counters.tokens.items():
            add_histogram(tokens, (*labels, kind, counted_by), histogram)
        for reason, count in counters.finish_reasons.items():
            reasons.add_metric((*labels, reason), count)
        errors.add_metric(labels, counters.errors)
    yield from (first, each, tokens, reasons, errors)
