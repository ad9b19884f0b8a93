"""The outputs of an answer that are asked for by their paths."""

from __future__ import annotations

from .jsonpick import pick
from .jsontext import read_json, read_lines
from .outputs import MAX_COLUMNS, Answer, Column
from .wanted import Asked, Wanted

#: What does not matter once what is asked for was found elsewhere.
_MOOT = frozenset({"unknown_protocol", "no_outputs", "wide"})


def add_picked(answer: Answer, wanted: Wanted, head: bytes, content_type: bytes, *, other: bool) -> None:
    """Put named outputs before those that were found without, and the rest into `picked`.

    `head`: the answer, or the JSON in it; `other`: of a route that asks for no prediction, where nothing need be found.
    """
    named: list[Column] = []
    if wanted.plain or wanted.indexed:
        _add_aliases(answer, wanted, named)
    if wanted.groups:
        asked = _pick(answer, wanted, head, content_type)
        for name in wanted.names:
            if (values := asked.columns.get(name)) is None:
                continue
            if name.startswith("$"):
                answer.picked[name] = values
            else:
                named.append((name, values))
        for reason in asked.failures:
            answer.fail(reason)
        if asked.columns:
            if asked.rows > answer.rows or not answer.columns:
                answer.rows = asked.rows
            answer.failures = [reason for reason in answer.failures if reason not in _MOOT]
        elif not other and not named and _MOOT.issuperset(answer.failures):
            answer.fail("no_outputs")
    if named:
        names = {name for name, _ in named}
        answer.columns = (named + [one for one in answer.columns if one[0] not in names])[:MAX_COLUMNS]


def _pick(answer: Answer, wanted: Wanted, head: bytes, content_type: bytes) -> Asked:
    asked = Asked()
    if head.lstrip(b" \t\r\n")[:1] not in (b"{", b"["):
        return asked
    try:
        document = read_lines(head) if b"lines" in content_type or b"jsonl" in content_type else read_json(head)
    except (ValueError, RecursionError):
        asked.fail("not_json")
        return asked
    pick(document, wanted, asked)
    if not asked.seen and asked.columns and answer.columns:
        # Values that hold for all rows: of those the outputs without a path tell.
        asked.saw(answer.rows)
    asked.settle()
    return asked


def _add_aliases(answer: Answer, wanted: Wanted, named: list[Column]) -> None:
    """Outputs that have another name in their protocol."""
    columns = dict(answer.columns)
    for name, of in wanted.plain:
        if name != of and of in columns:
            named.append((name, columns[of]))
    for name, of, at in wanted.indexed:
        if name == f"{of}[{at}]":
            continue
        for called, values in answer.columns:
            if called == f"{of}.{at}" or (not of and called.endswith(f".{at}")):
                named.append((name, values))
                break
