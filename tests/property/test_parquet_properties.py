"""Whatever texts and bytes are in a table, two readers that are not ours find them in its file."""

from __future__ import annotations

import io

import pyarrow.parquet as parquet
from arro3.io import read_parquet
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coalmine_sidecar.payload.parquetformat import Column, Table

Row = tuple[str | None, bytes | None, str | None]

COLUMNS = (Column("name", text=True), Column("data", text=False), Column("mostly äbsent", text=True))
CELLS = (
    st.none() | st.text(st.characters(codec="utf-8")),
    st.none() | st.binary(max_size=300),
    st.none() | st.none() | st.just("x" * 1000),
)
ROWS = st.lists(st.tuples(*CELLS), min_size=1, max_size=70)


def written(rows: list[Row]) -> bytes:
    table = Table(COLUMNS)
    for name, data, rare in rows:
        table.add((encoded(name), data, encoded(rare)))
    return b"".join(table.pieces())


def encoded(text: str | None) -> bytes | None:
    return text.encode() if text is not None else None


@settings(deadline=None)
@given(ROWS)
@example([(None, None, None)])
@example([("", b"", "")] * 9)
@example([("a", b"\0" * (2 << 20), None), (None, None, "b")])
@example([("a" if number % 2 else None, None, None) for number in range(5000)])
def test_rows_are_read_as_they_were_written(rows: list[Row]):
    file = written(rows)
    table = parquet.read_table(io.BytesIO(file))
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("name", "string"), ("data", "binary"), ("mostly äbsent", "string"),
    ]  # fmt: skip
    assert [tuple(row.values()) for row in table.to_pylist()] == rows
    batches = list(read_parquet(io.BytesIO(file)))
    assert [row for batch in batches for row in zip(*(one.to_pylist() for one in batch.columns), strict=True)] == rows


@settings(deadline=None)
@given(ROWS)
def test_sizes_in_the_footer_are_those_of_the_file(rows: list[Row]):
    file = written(rows)
    metadata = parquet.read_metadata(io.BytesIO(file))
    group = metadata.row_group(0)
    chunks = [group.column(index) for index in range(group.num_columns)]
    ends = [chunk.data_page_offset + chunk.total_compressed_size for chunk in chunks]
    starts = [chunk.data_page_offset for chunk in chunks]
    assert [4, *ends] == [*starts, len(file) - metadata.serialized_size - 8]
    assert group.total_byte_size == sum(chunk.total_uncompressed_size for chunk in chunks)
    assert {chunk.num_values for chunk in chunks} == {metadata.num_rows} == {len(rows)}
