"""What a request to OpenAI's API says of itself: lengths and settings, never the text."""

from __future__ import annotations

from typing import Any

from .tables import read_objects
from .wanted import SCALARS, Asked, Wanted

#: Fields that are text: not columns themselves.
_TEXTS = frozenset({"prompt", "input"})


def read_prompt(document: dict[str, Any], wanted: Wanted, asked: Asked) -> None:
    """One row: the document's own numbers, flags and words (`temperature`, `model`), and

    `prompt_chars`, characters of what is given to be read; `messages`, how many there are; `max_tokens`, by its new
    name as well.
    """
    row: dict[str, Any] = {}
    for _, key in wanted.plain:
        if key == "prompt_chars":
            if (count := _characters(document)) is not None:
                row[key] = count
        elif key == "messages":
            messages = document.get(key)
            if isinstance(messages, list):
                row[key] = len(messages)
        elif key not in _TEXTS and key in document and type(document[key]) in SCALARS:
            row[key] = document[key]
        elif key == "max_tokens" and type(document.get("max_completion_tokens")) in SCALARS:
            row[key] = document.get("max_completion_tokens")
    read_objects([row], wanted, asked)


def _characters(document: dict[str, Any]) -> int | None:
    """Of messages, of a prompt or of what is to be embedded; None where these are tokens or nothing."""
    messages = document.get("messages")
    if isinstance(messages, list):
        return sum(_of_content(message.get("content")) for message in messages if isinstance(message, dict))
    text = document.get("prompt", document.get("input"))
    if isinstance(text, str):
        return len(text)
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        return sum(map(len, text))
    return None


def _of_content(content: Any) -> int:
    """A text, or parts of which some are one."""
    if isinstance(content, str):
        return len(content)
    if not isinstance(content, list):
        return 0
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return sum(len(text) for text in texts if isinstance(text, str))
