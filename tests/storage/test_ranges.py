import io
import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentau_prep.storage.ranges import RangedParquet, RangeFile, chunk_ranges, merge_ranges


class Source:
    """Bytes that know what was asked of them."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.calls: list[list[tuple[int, int]]] = []

    def __call__(self, ranges):
        self.calls.append(list(ranges))
        return [self.content[a:b] for a, b in ranges]

    @property
    def n_bytes(self) -> int:
        return sum(b - a for call in self.calls for a, b in call)


def wide_table(rows: int = 20_000) -> pa.Table:
    rng = np.random.default_rng(0)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(rows * 6)), 6)
    return pa.table(
        {
            "observation.state": lists,
            "observation": rng.random(rows),
            "task": pa.array(["a", "b"] * (rows // 2)).dictionary_encode(),
            "index": np.arange(rows),
            "heavy": rng.random(rows),
            "pair": pa.array([{"x": i, "y": 1.5 * i} for i in range(rows)]),
        }
    )


@pytest.fixture(scope="module")
def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(wide_table(), sink, row_group_size=4_000)
    return sink.getvalue()


@pytest.mark.parametrize("columns", [None, ["index"], ["observation.state", "task"], ["pair"]])
def test_ranged_parquet_reads_what_pyarrow_reads(parquet: bytes, columns) -> None:
    source = Source(parquet)
    file = RangedParquet(RangeFile(source, len(parquet)))
    assert file.read(columns=columns).equals(pq.read_table(io.BytesIO(parquet), columns=columns))
    # The end of the file, and all the rest at once.
    assert len(source.calls) <= 2


def test_ranged_parquet_row_groups_fetch_their_own_chunks(parquet: bytes) -> None:
    source = Source(parquet)
    file = RangedParquet(RangeFile(source, len(parquet)))
    opened = source.n_bytes
    table = file.read_row_groups([1, 3], columns=["index", "heavy"])
    whole = wide_table().select(["index", "heavy"])
    assert table.equals(pa.concat_tables([whole.slice(4_000, 4_000), whole.slice(12_000, 4_000)]))
    wanted = chunk_ranges(file.metadata, [1, 3], ["index", "heavy"])
    assert len(source.calls) == 2
    assert source.n_bytes - opened <= sum(b - a for a, b in merge_ranges(wanted))


def test_ranged_parquet_forgets_what_it_fetched(parquet: bytes) -> None:
    source = Source(parquet)
    file = RangedParquet(RangeFile(source, len(parquet)))
    for _ in range(2):
        file.read(columns=["heavy"])
    assert len(source.calls) == 3
    assert source.calls[1] == source.calls[2]


def test_chunk_ranges_of_all_columns_cover_the_data(parquet: bytes) -> None:
    metadata = pq.ParquetFile(io.BytesIO(parquet)).metadata
    groups = range(metadata.num_row_groups)
    ranges = chunk_ranges(metadata, groups, None)
    sizes = [metadata.row_group(g).column(c).total_compressed_size
             for g in groups for c in range(metadata.num_columns)]  # fmt: skip
    assert [b - a for a, b in ranges] == sizes
    assert merge_ranges(ranges, max_gap=0)[0][0] == 4  # right after the magic bytes


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 50)), max_size=12), st.integers(0, 9))
@settings(max_examples=60)
def test_merge_ranges_covers_exactly_up_to_gaps(pairs, gap: int) -> None:
    ranges = [(a, a + n) for a, n in pairs]
    merged = merge_ranges(ranges, max_gap=gap)
    assert merged == sorted(merged)
    assert all(b[0] - a[1] > gap for a, b in itertools.pairwise(merged))
    inside = {i for a, b in merged for i in range(a, b)}
    assert inside >= {i for a, b in ranges for i in range(a, b)}
    assert {end for pair in merged for end in pair} <= {end for pair in ranges for end in pair}


@given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 320), st.integers(-1, 100))))
@settings(max_examples=60)
def test_range_file_reads_like_a_file(content: bytes, reads) -> None:
    ours, plain = RangeFile(Source(content), len(content)), io.BytesIO(content)
    for position, size in reads:
        assert ours.seek(position) == plain.seek(position)
        assert ours.read(size) == plain.read(size)
        assert ours.tell() == plain.tell()
    assert ours.seek(0, io.SEEK_END) == len(content)
