"""What can be told of a text that a language model wrote, without a look at the text: how long, refused, how sure."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from .generation import MAX_CHOICES
from .outputs import Answer


class _Token(Struct):
    logprob: float | None = None


class _Logprobs(Struct):
    """Of a chat: `content`, a token each; of a completion: `token_logprobs`, null for the first."""

    content: list[_Token] | None = None
    token_logprobs: list[float | None] | None = None


class _Choice(Struct):
    """`characters` and `refused` are None until something is said of them."""

    characters: int | None = None
    refused: bool | None = None
    total: float = 0.0
    tokens: int = 0


_decode_logprobs: Final = msgspec.json.Decoder(_Logprobs).decode
_decode_text: Final = msgspec.json.Decoder(str).decode


class Completions:
    """The choices of one answer, whole or in pieces.

    Their columns: `completion_chars`, characters (Unicode's) of each; `refusal`, where the server has such a field;
    `mean_logprob`, the mean of the tokens' natural log-probabilities, where it gives them.
    """

    __slots__ = ("_choices",)

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}

    def add(self, index: Any, text: Raw, logprobs: Raw, refusal: Raw) -> None:
        """A choice, or the next piece of one. What is not of the API's form is left out."""
        choice = self._choices.get(index) if type(index) is int else self._choices.get(0)
        if choice is None:
            if len(self._choices) >= MAX_CHOICES:
                return
            choice = self._choices[index if type(index) is int else 0] = _Choice()
        # Of every token of a stream this is asked: what is not there has no length.
        if text and (count := _characters(bytes(text))) is not None:
            choice.characters = count if choice.characters is None else choice.characters + count
        if refusal:
            choice.refused = bool(choice.refused) or bytes(refusal) not in (b"null", b'""')
        if logprobs and (given := bytes(logprobs)) != b"null":
            _add_logprobs(given, choice)

    def into(self, answer: Answer) -> None:
        """Add the columns that there are; lengths are floats, as whole numbers are taken for labels as well."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        if any(choice.characters is not None for choice in choices):
            answer.add("completion_chars", [float(choice.characters or 0) for choice in choices], 1)
        if any(choice.refused is not None for choice in choices):
            answer.add("refusal", [bool(choice.refused) for choice in choices], 1)
        if any(choice.tokens for choice in choices):
            means = [choice.total / choice.tokens if choice.tokens else None for choice in choices]
            answer.add("mean_logprob", means, 1)


def _characters(text: bytes) -> int | None:
    """Of a JSON string; None where it is none."""
    if not text.startswith(b'"'):
        return None
    if b"\\" not in text and text.isascii():
        return len(text) - 2
    try:
        return len(_decode_text(text))
    except ValueError:
        return None


def _add_logprobs(given: bytes, choice: _Choice) -> None:
    try:
        found = _decode_logprobs(given)
    except (ValueError, RecursionError):
        return
    values = [token.logprob for token in found.content or ()]
    values += found.token_logprobs or ()
    known = [value for value in values if value is not None]
    choice.total += sum(known)
    choice.tokens += len(known)
