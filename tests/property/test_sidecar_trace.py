"""traceparent: what is taken for one, as the recommendation's grammar has it, and what is made."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from coalmine_sidecar.relay.trace import SAMPLED, UNSAMPLED, Ids, identified, is_valid, sampled_trace

HEX = "0123456789abcdef"


def digits(size: int) -> st.SearchStrategy[str]:
    return st.text(HEX, min_size=size, max_size=size)


def is_one(text: str) -> bool:
    """W3C Trace Context 3.2.2 and 4.2, field by field."""
    version, *rest = text.split("-", 1)
    if len(version) != 2 or version == "ff" or not set(version) <= set(HEX) or not rest:
        return False
    fields = rest[0].split("-", 3)
    if len(fields) < 3 or [len(field) for field in fields[:3]] != [32, 16, 2]:
        return False
    if any(not set(field) <= set(HEX) for field in fields[:3]) or fields[0] == "0" * 32 or fields[1] == "0" * 16:
        return False
    return version != "00" or len(fields) == 3


near = st.builds(
    lambda parts, tail: "-".join(parts) + tail,
    st.tuples(
        st.one_of(st.sampled_from(["00", "01", "ff", "0", "0A"]), digits(2)),
        st.one_of(digits(32), st.just("0" * 32), digits(31), digits(31).map(lambda text: text + "G")),
        st.one_of(digits(16), st.just("0" * 16), digits(17)),
        st.one_of(digits(2), digits(1), st.just("0A")),
    ),
    st.sampled_from(["", "-", "-x", "x", "-00", " "]),
)


@given(st.one_of(near, st.text(HEX + "-", max_size=60)))
@example("00-" + "1" * 32 + "-" + "1" * 16 + "-01")
@example("01-" + "1" * 32 + "-" + "1" * 16 + "-01-")
def test_valid_ones_are_those_of_the_recommendation(text: str):
    assert is_valid(text.encode()) is is_one(text)


@given(digits(32), digits(16), st.integers(0, 255))
def test_the_sampled_flag_is_the_lowest_bit(trace: str, span: str, flags: int):
    given_ = f"00-{trace}-{span}-{flags:02x}".encode()
    assert sampled_trace(given_) == (trace.encode() if flags & 1 else b"")


@given(
    st.one_of(st.none(), near.map(str.encode)),
    st.booleans(),
    st.sampled_from([b"", b"mine"]),
    st.sampled_from([SAMPLED, UNSAMPLED]),
)
def test_a_request_ends_up_with_one_valid_trace_and_one_id(traceparent, tracestate, request_id, ending):
    lines = [b"Host", b": ", b"m", b"\r\n"]
    if traceparent is not None:
        lines += (b"TraceParent", b": ", traceparent, b"\r\n")
    if tracestate:
        lines += (b"tracestate", b": ", b"a=1", b"\r\n")
    if request_id:
        lines += (b"x-request-id", b": ", request_id, b"\r\n")
    given_ = traceparent is not None and is_valid(traceparent)
    lines, known_by, trace = identified(lines, Ids(), ending, traceparent, tracestate, request_id)
    fields = [(lines[at].lower(), lines[at + 2]) for at in range(0, len(lines), 4)]
    found = dict(fields)
    assert len(found) == len(fields)
    assert is_one(found[b"traceparent"].decode())
    assert (found[b"traceparent"] == traceparent) is given_
    assert (b"tracestate" in found) is (tracestate and given_)
    assert known_by == found[b"x-request-id"] != b""
    assert trace == sampled_trace(found[b"traceparent"])


def test_ids_do_not_repeat():
    ids = Ids()
    assert len({ids.begin(SAMPLED)[1] for _ in range(2000)}) == 2000
