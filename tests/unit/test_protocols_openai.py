"""OpenAI's API, whole answers and streams: tokens, reasons of the end, times, errors where an answer should be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coalmine_sidecar.protocols import extract
from coalmine_sidecar.protocols.generation import MAX_CHOICES
from coalmine_sidecar.protocols.openai import StreamReader, operation_of, status_of

CHAT = b"/v1/chat/completions"


def read(path: bytes, document: object, content_type: bytes = b"application/json") -> Any:
    return extract("auto", path, content_type, None, json.dumps(document).encode())


def stream(*events: object, operation: Any = "chat") -> StreamReader:
    reader = StreamReader(operation)
    for at, event in enumerate(events):
        reader.take(event if isinstance(event, bytes) else json.dumps(event).encode(), float(at))
    return reader


def token(text: str | None, finish: str | None = None, **delta: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text} | delta, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        (CHAT, "chat"),
        (b"/openai/v1/chat/completions?api-version=1", "chat"),
        (b"/v1/completions", "text_completion"),
        (b"/v1/embeddings", "embeddings"),
        (b"/v1/models", None),
        (b"/v1/models/m:predict", None),
        (b"/v1/audio/speech?x=/embeddings", None),
    ],
)
def test_the_path_says_what_is_asked_for(path, operation):
    assert operation_of(path) == operation


def test_a_chat():
    choices = [{"message": {"content": "hi"}, "finish_reason": "stop"}, {"message": {}, "finish_reason": "length"}]
    answer = read(CHAT, {"choices": choices, "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    generation = answer.generation
    assert (generation.operation, generation.input_tokens, generation.output_tokens) == ("chat", 7, 3)
    assert generation.finish_reasons == ["stop", "length"]
    assert (generation.chunks, generation.first, generation.per_token) == (0, None, None)
    assert (answer.rows, answer.columns, answer.failures) == (
        2, [("finish_reason", ["stop", "length"]), ("output_tokens", [3]), ("completion_chars", [2.0, 0.0])], [],
    )  # fmt: skip


def test_embeddings_have_rows_and_no_columns():
    answer = read(b"/v1/embeddings", {"data": [{"embedding": [0.1] * 768}] * 2, "usage": {"prompt_tokens": 5}})
    assert (answer.rows, answer.columns, answer.failures) == (2, [], [])
    assert (answer.generation.input_tokens, answer.generation.output_tokens) == (5, None)


def test_usage_may_be_missing():
    answer = read(b"/v1/completions", {"choices": [{"text": "hi", "finish_reason": "stop"}]})
    assert (answer.generation.input_tokens, answer.generation.output_tokens, answer.rows) == (None, None, 1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"oops", "not_json"), (b'{"choices": 3}', "shape"), (b"{}", "no_outputs"), (b"[]", "shape"), (b"", "not_json")],
)
def test_what_is_no_answer_is_counted_as_such(body, reason):
    answer = extract("openai", CHAT, b"application/json", None, body)
    assert (answer.failures, answer.rows, answer.generation) == ([reason], 0, None)


def test_log_probabilities_may_be_infinite():
    body = b'{"choices":[{"logprobs":{"x":-Infinity},"finish_reason":"stop"}]}'
    assert extract("auto", CHAT, b"application/json", None, body).generation.finish_reasons == ["stop"]


@pytest.mark.parametrize("path", [b"/v1/models", b"/health", b"/metrics", b"/"])
def test_other_paths_of_a_server_of_this_protocol_are_no_predictions(path):
    assert read(path, {"data": [1]}).failures in ([], ["unknown_protocol"])
    assert extract("openai", path, b"application/json", None, b'{"predictions":[1]}').rows == 0


def test_a_stream_with_usage():
    reader = stream(
        token("", role="assistant"),
        token("a"),
        token("b"),
        token("c"),
        token(None, "stop"),
        {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 5}},
        b"[DONE]",
    )
    generation = reader.generation
    assert (generation.first, generation.last, generation.chunks) == (1.0, 3.0, 3), "a role is no token"
    assert (generation.input_tokens, generation.output_tokens) == (4, 5)
    assert generation.per_token == 0.5
    assert generation.finish_reasons == ["stop"]
    assert (reader.done, reader.status, reader.failures) == (True, 0, [])
    assert reader.answer().columns == [("finish_reason", ["stop"]), ("output_tokens", [5]), ("completion_chars", [3.0])]


def test_a_stream_without_usage_is_counted_by_its_chunks():
    generation = stream(token("a"), token("b"), token("c")).generation
    assert (generation.output_tokens, generation.chunks, generation.per_token) == (None, 3, 1.0)


def test_running_totals_are_not_summed():
    events = [token(text) | {"usage": {"prompt_tokens": 4, "completion_tokens": n}} for n, text in enumerate("abc", 1)]
    generation = stream(*events).generation
    assert (generation.input_tokens, generation.output_tokens) == (4, 3)


def test_one_token_has_no_time_for_each_further_one():
    assert stream(token("a")).generation.per_token is None


@pytest.mark.parametrize(
    "delta",
    [
        {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"refusal": "no"},
        {"function_call": {"arguments": "{"}},
    ],
)
def test_whatever_is_generated_counts(delta):
    assert stream(token(None, **delta)).generation.chunks == 1


def test_a_completion_streams_text():
    generation = stream(
        {"choices": [{"text": ""}]},
        {"choices": [{"text": "a"}, {"text": "b", "finish_reason": "length"}]},
        operation="text_completion",
    ).generation
    assert (generation.chunks, generation.first, generation.finish_reasons) == (2, 1.0, ["length"])


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ({"error": {"message": "boom", "type": "server_error", "code": None}}, 500),
        ({"error": {"message": "too long", "code": 400}}, 400),
        ({"error": {"message": "full", "code": "503"}}, 503),
        ({"error": {"message": "no", "type": "invalid_request_error", "code": "context_length_exceeded"}}, 400),
        ({"error": "boom"}, 500),
        ({"object": "error", "message": "boom", "code": 40303}, 500),
        ({"object": "error", "message": "no such model", "code": 404}, 404),
        ({"error": None, "choices": []}, 0),
    ],
)
def test_an_error_inside_a_stream(event, status):
    assert stream(event).status == status
    assert stream(token("a"), event).status == status


def test_the_first_error_counts():
    assert stream({"error": {"code": 404}}, {"error": {"code": 500}}).status == 404


def test_an_error_of_no_shape_is_the_servers():
    assert status_of([1]) == status_of(None) == status_of({"code": True}) == 500


def test_events_that_cannot_be_read_are_counted_once_and_passed_over():
    reader = stream(b"nonsense", b"more nonsense", {"choices": 1}, token("a"))
    reader.take(None, 9.0)
    assert (reader.failures, reader.generation.chunks) == (["not_json", "shape", "truncated"], 1)


def test_what_a_server_says_is_bounded():
    reader = stream(*[token("a", "x" * 1000)] * 500)
    assert len(reader.generation.finish_reasons) == 128
    assert {len(reason) for reason in reader.generation.finish_reasons} == {64}
    assert stream({"usage": {"prompt_tokens": -1, "completion_tokens": 10**30}}).generation.output_tokens is None


def test_what_is_told_of_each_choice_of_a_whole_answer():
    logprobs = {"content": [{"token": "a", "logprob": -1.5}, {"token": "b", "logprob": -0.5, "top_logprobs": []}]}
    choices = [
        {"index": 0, "message": {"content": "größ\n", "refusal": None}, "logprobs": logprobs},
        {"index": 1, "message": {"content": None, "refusal": "I can't."}, "logprobs": None},
    ]
    answer = read(CHAT, {"id": "chatcmpl-7", "choices": choices})
    assert answer.columns == [
        ("completion_chars", [5.0, 0.0]), ("refusal", [False, True]), ("mean_logprob", [-1.0, None]),
    ]  # fmt: skip
    assert answer.id == "chatcmpl-7"


def test_log_probabilities_of_a_completion():
    logprobs = {"token_logprobs": [None, -1.0, -3.0], "tokens": ["a", "b", "c"]}
    answer = read(b"/v1/completions", {"choices": [{"text": "abc", "logprobs": logprobs, "finish_reason": "stop"}]})
    assert answer.columns == [("finish_reason", ["stop"]), ("completion_chars", [3.0]), ("mean_logprob", [-2.0])]


@pytest.mark.parametrize(
    "choice",
    [
        {"message": 3, "logprobs": [1]},
        {"message": {"content": ["parts"]}, "logprobs": {"content": 3}},
        {"text": 3, "logprobs": {"token_logprobs": ["x"]}},
        {"index": "x", "text": "abc"},
    ],
)
def test_odd_choices_are_still_answers(choice):
    answer = read(CHAT, {"choices": [choice | {"finish_reason": "stop"}]})
    assert (dict(answer.columns)["finish_reason"], answer.rows, answer.failures) == (["stop"], 1, [])


def test_pieces_of_a_stream_are_put_together_by_choice():
    def piece(index, text, logprob=None, **delta):
        given = None if logprob is None else {"content": [{"token": "t", "logprob": logprob}]}
        return {"id": "c-1", "choices": [{"index": index, "delta": {"content": text} | delta, "logprobs": given}]}

    reader = stream(
        piece(0, "", role="assistant", refusal=None), piece(1, "xyz", -4.0), piece(0, "ab", -1.0),
        piece(0, "c", -2.0), piece(1, None, refusal="no"), b"[DONE]",
    )  # fmt: skip
    answer = reader.answer()
    assert answer.columns == [
        ("completion_chars", [3.0, 3.0]), ("refusal", [False, True]), ("mean_logprob", [-1.5, -4.0]),
    ]  # fmt: skip
    assert answer.id == "c-1"


def test_choices_of_a_stream_are_bounded():
    reader = stream(*({"choices": [{"index": i, "delta": {"content": "x"}}]} for i in range(MAX_CHOICES + 50)))
    assert len(dict(reader.answer().columns)["completion_chars"]) == MAX_CHOICES
