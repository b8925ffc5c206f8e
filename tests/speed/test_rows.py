"""The file's format: written as training writes it, read although people edit it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opentau_prep.errors import MetadataError
from opentau_prep.speed.rows import SpeedRow, append_rows, decode_rows, encode_rows, make_rows

TEN = [float(n) for n in range(10, 110, 10)]
_tasks = st.text(st.characters(codec="utf-8"), max_size=30)
_rows = st.lists(
    st.builds(
        SpeedRow,
        st.integers(0, 10_000),
        _tasks,
        st.integers(0, 10**6),
        st.none() | st.just(TEN) | st.lists(
            st.floats(0, 1e6), min_size=10, max_size=10
        ).map(sorted),
    ),
    unique_by=lambda row: row.task_index,
    max_size=5,
)  # fmt: skip


@given(_rows)
def test_rows_write_then_read_gives_the_same(rows):
    assert decode_rows(encode_rows(rows), "f") == rows


def test_encode_rows_is_one_plain_json_line_a_task():
    content = encode_rows([SpeedRow(0, 'put "it" ü', 3, None)])
    assert content.decode() == (
        '{"task_index": 0, "task": "put \\"it\\" ü", "n_episodes": 3, "percentiles": null}\n'
    )


@pytest.mark.parametrize("old", [b"", b'{"task_index": 1}', b'{"task_index": 1}\n\n'])
def test_append_rows_keeps_old_bytes(old):
    new = append_rows(old, [SpeedRow(2, "t", 1, None)])
    assert new.startswith(old)
    assert [row.task_index for row in decode_rows(new, "f")] == ([1, 2] if old else [2])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 1: is not valid JSON"),
        ("[1]", "must hold a JSON object"),
        ('{"task": "x"}', "`task_index` must be a whole number of 0 or more, found None"),
        ('{"task_index": true}', "found True"),
        ('{"task_index": 1.5}', "found 1.5"),
        ('{"task_index": 0, "task": 3}', "`task` must be a string"),
        ('{"task_index": 0, "n_episodes": -1}', "`n_episodes`"),
        ('{"task_index": 0, "percentiles": [1, 2]}', "10 lengths in ascending order"),
        ('{"task_index": 0, "percentiles": [2,1,3,4,5,6,7,8,9,10]}', "ascending"),
        ('{"task_index": 0, "percentiles": [1,2,3,4,5,6,7,8,9,NaN]}', "ascending"),
        ('{"task_index": 0}\n{"task_index": 0}', "line 2: task_index 0 occurs twice"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_decode_rows_edited_badly_names_line_and_fault(line, says):
    with pytest.raises(MetadataError, match=r"speed-percentiles --force|Remove one") as caught:
        decode_rows(line.encode("utf-8", "surrogateescape"), "speed.jsonl")
    assert says in str(caught.value)


@given(st.binary(max_size=200))
def test_decode_rows_any_bytes_rows_or_metadata_error(content):
    try:
        decode_rows(content, "f")
    except MetadataError:
        return


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_append_rows_after_a_line_with_or_without_its_end_adds_one_line(end):
    one, other = (SpeedRow(n, "pick", 3, None) for n in (0, 1))
    content = append_rows(encode_rows([one]).rstrip(b"\n") + end, [other])
    assert content == encode_rows([one, other])
    assert append_rows(b"", [one]) == encode_rows([one])


def test_decode_rows_without_n_episodes_reads_zero():
    (row,) = decode_rows(b'{"task_index": 4, "percentiles": null}', "f")
    assert row == SpeedRow(4, "", 0, None)


def test_make_rows_groups_episodes_by_task_and_leaves_out_those_without():
    lengths = {episode: 10 * (episode + 1) for episode in range(12)}
    tasks = dict.fromkeys(range(10), 2) | {11: 0}
    expected = np.percentile(range(10, 110, 10), range(5, 100, 10)).tolist()
    assert make_rows(lengths, tasks, {2: "pick"}) == [
        SpeedRow(0, "", 1, None),
        SpeedRow(2, "pick", 10, expected),
    ]
