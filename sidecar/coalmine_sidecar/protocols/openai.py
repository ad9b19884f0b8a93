"""OpenAI's API as model servers speak it: chat, completions, embeddings, whole or as a stream of events.

Source: platform.openai.com/docs/api-reference, and what vLLM, llama.cpp and others make of it: `usage` comes in the
last event (only if the request asks for it), in every event with running totals, or not at all.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from .completion import Completions
from .generation import MAX_CHOICES, Generation, Operation
from .jsontext import strict_json
from .outputs import Answer, failure, id_of

#: Some servers put a prefix before `/v1` (KServe `/openai`); what counts is the end.
_ENDS: Final[tuple[tuple[bytes, Operation], ...]] = (
    (b"/chat/completions", "chat"),
    (b"/completions", "text_completion"),
    (b"/embeddings", "embeddings"),
)
_DONE: Final = b"[DONE]"
#: JSON of a field in which nothing was generated.
_NOTHING: Final = frozenset({b"", b"null", b'""', b"[]", b"{}"})
#: Longer ones are no reasons.
_MAX_REASON: Final = 64


class _Part(Struct):
    """`delta` of a chat's chunk, `message` of its whole answer. Only whether there is something is of interest."""

    content: Raw = Raw()
    reasoning_content: Raw = Raw()
    reasoning: Raw = Raw()
    refusal: Raw = Raw()
    tool_calls: Raw = Raw()
    function_call: Raw = Raw()
    audio: Raw = Raw()

    @property
    def generated(self) -> bool:
        # The commonest first: this is asked of every token.
        return (
            bytes(self.content) not in _NOTHING
            or bytes(self.reasoning_content) not in _NOTHING
            or bytes(self.tool_calls) not in _NOTHING
            or bytes(self.reasoning) not in _NOTHING
            or bytes(self.function_call) not in _NOTHING
            or bytes(self.refusal) not in _NOTHING
            or bytes(self.audio) not in _NOTHING
        )


class _Choice(Struct):
    delta: _Part | None = None
    message: Raw = Raw()
    text: Raw = Raw()
    finish_reason: str | None = None
    index: Any = None
    logprobs: Raw = Raw()


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Document(Struct):
    """An answer or a chunk of one; both have these fields alike."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    data: list[Raw] | None = None
    error: Raw = Raw()
    #: Old servers of vLLM send an error as an object of its own.
    object: str | None = None
    code: Any = None
    id: Any = None


_decode = msgspec.json.Decoder(_Document).decode
_decode_part = msgspec.json.Decoder(_Part).decode
_NONE: Final = Raw()


def operation_of(path: bytes) -> Operation | None:
    """What a request's target asks for; None where it is none of this API's that generates anything."""
    route = path.partition(b"?")[0]
    for end, operation in _ENDS:
        if route.endswith(end):
            return operation
    return None


def read(operation: Operation, body: bytes) -> Answer:
    """A whole answer. Its outputs are the reasons why it ended and its length: a canary that rambles shows in them.

    Beside them, of each choice: see Completions.
    """
    try:
        document = _read_document(body)
    except msgspec.ValidationError:
        return failure("shape")
    except (ValueError, RecursionError):
        return failure("not_json")
    if document.choices is None and document.data is None:
        return failure("no_outputs")
    generation = Generation(operation)
    _note(generation, document)
    completions = Completions()
    for at, choice in enumerate((document.choices or ())[:MAX_CHOICES]):
        part = _message(choice.message)
        completions.add(at, part.content if part.content else choice.text, choice.logprobs, part.refusal)
    answer = answer_of(generation, rows=len(document.choices or document.data or ()))
    completions.into(answer)
    answer.id = id_of(document.id)
    return answer


def answer_of(generation: Generation, *, rows: int) -> Answer:
    """What was generated, as outputs. A length is a float here: whole numbers are taken for labels as well."""
    answer = Answer(rows=rows, generation=generation)
    if generation.finish_reasons:
        answer.add("finish_reason", generation.finish_reasons, 1)
    if generation.output_tokens is not None and generation.operation != "embeddings":
        answer.add("output_tokens", [float(generation.output_tokens)], 1)
    return answer


class StreamReader:
    """Reads the events of one streamed answer as they come. None of its methods raises.

    `status`: 0 while all is well; else that of an error that stands in the stream in spite of the answer's 200.
    """

    __slots__ = ("_completions", "done", "failures", "generation", "id", "status")

    def __init__(self, operation: Operation) -> None:
        self.generation = Generation(operation)
        self.failures: list[str] = []
        self.status = 0
        #: What the server calls the answer, or empty.
        self.id = ""
        self._completions = Completions()
        #: The end came that says that nothing is missing.
        self.done = False

    def take(self, event: bytes | None, at: float) -> None:
        """One event's data, None if it was too long to be kept; it came at `at` (seconds)."""
        generation = self.generation
        if event == _DONE:
            self.done = True
            return
        document = self._document(event)
        if document is None:
            return
        if bytes(document.error) not in _NOTHING:
            self.status = self.status or status_of(_loads(document.error))
            return
        if document.object == "error":
            self.status = self.status or status_of({"code": document.code})
            return
        choices = document.choices
        if not self.id:
            self.id = id_of(document.id)
        if choices:
            for choice in choices:
                part = choice.delta
                self._completions.add(
                    choice.index,
                    choice.text if part is None else part.content,
                    choice.logprobs,
                    _NONE if part is None else part.refusal,
                )
                if (choice.delta is not None and choice.delta.generated) or bytes(choice.text) not in _NOTHING:
                    generation.chunks += 1
                    generation.last = at
                    if generation.first is None:
                        generation.first = at
        _note(generation, document)

    def answer(self) -> Answer:
        """Of the whole stream."""
        answer = answer_of(self.generation, rows=max(1, len(self.generation.finish_reasons)))
        self._completions.into(answer)
        answer.id = self.id
        answer.failures = self.failures
        return answer

    def _document(self, event: bytes | None) -> _Document | None:
        reason = "truncated"
        if event is not None:
            try:
                return _read_document(event)
            except msgspec.ValidationError:
                reason = "shape"
            except (ValueError, RecursionError):
                reason = "not_json"
        if reason not in self.failures:
            self.failures.append(reason)
        return None


def status_of(error: object) -> int:
    """The HTTP status that an error inside a stream stands for: its `code` where that is one, else 500.

    OpenAI's codes are words; its type of a request that can't be served is `invalid_request_error`.
    """
    if not isinstance(error, dict):
        return 500
    code = error.get("code")
    if isinstance(code, str) and code.isdigit() and len(code) == 3:
        code = int(code)
    if isinstance(code, int) and 400 <= code <= 599:
        return code
    return 400 if error.get("type") in ("invalid_request_error", "BadRequestError") else 500


def _note(generation: Generation, document: _Document) -> None:
    usage = document.usage
    if usage is not None:
        # Running totals grow: the largest is the whole one, and their sum would be nothing.
        generation.input_tokens = _larger(generation.input_tokens, usage.prompt_tokens)
        generation.output_tokens = _larger(generation.output_tokens, usage.completion_tokens)
    if document.choices:
        for choice in document.choices:
            reason = choice.finish_reason
            if reason and len(generation.finish_reasons) < MAX_CHOICES:
                generation.finish_reasons.append(reason[:_MAX_REASON])


def _message(raw: Raw) -> _Part:
    try:
        return _decode_part(raw) if raw else _Part()
    except (ValueError, RecursionError):
        return _Part()


def _larger(known: int | None, told: int | None) -> int | None:
    if told is None or not 0 <= told < 1 << 53:
        return known
    return told if known is None or told > known else known


def _read_document(body: bytes) -> _Document:
    try:
        return _decode(body)
    except msgspec.ValidationError:
        raise
    except ValueError:
        # Log-probabilities are where NaN and Infinity come from.
        return _decode(strict_json(body))


def _loads(raw: Raw) -> object:
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return None
