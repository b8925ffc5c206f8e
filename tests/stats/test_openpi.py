import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from opentau_prep import ConfigError, DataError
from opentau_prep.stats.histogram import RunningStats
from opentau_prep.stats.openpi import (
    OpenpiAccumulator,
    norm_stats_record,
    prepare_vectors,
    prepared_dtype,
)

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("OPENTAU_PREP_REAL_DATA", ROOT.parent / "shared" / "data"))
CASES = json.loads((ROOT / "tests" / "golden" / "kai0.json").read_text())["cases"]
COLUMNS = {"state": "observation.state", "actions": "action"}


def _read(root, limit):
    """Each file's state and actions, in sorted path order, until `limit` frames are reached."""
    left, blocks = limit or 10**9, []
    for file in sorted(root.glob("data/**/*.parquet")):
        if left <= 0:
            break
        table = pq.read_table(file, columns=list(COLUMNS.values())).slice(0, left)
        left -= len(table)
        blocks.append(
            {
                key: table[name].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
                for key, name in COLUMNS.items()
            }
        )
    return blocks


def _run(blocks, case, *, numpy1_edges):
    stats, frames = {}, set()
    for key in COLUMNS:
        width, dtype = blocks[0][key].shape[1], blocks[0][key].dtype
        accumulator = OpenpiAccumulator(
            dtype=prepared_dtype(width, dtype, case["action_dim"]),
            action_dim=case["action_dim"],
            numpy1_edges=numpy1_edges,
        )
        for block in blocks:
            accumulator.update(block[key])
        stats[key] = accumulator.finish()
        frames.add(accumulator.frames)
    return norm_stats_record(stats), frames


@pytest.mark.parametrize("numpy1_edges", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['action_dim']}-{c['max_frames']}")
def test_norm_stats_record_real_dataset_gives_recorded_bits(case, numpy1_edges, tmp_path):
    source = REAL / case["dataset"]
    if not source.is_dir():
        pytest.skip("the real datasets are not here")
    shutil.copytree(source / "data", tmp_path / "data")
    expected = case["expected"]
    if numpy1_edges and case["expected_numpy1"] != "same":
        expected = case["expected_numpy1"]
    blocks = _read(tmp_path, case["max_frames"])
    record, frames = _run(blocks, case, numpy1_edges=numpy1_edges)
    # Through JSON: what is written must read back as the recorded file.
    assert json.loads(json.dumps(record)) == expected["norm_stats_json"]
    assert frames == {expected["frames"]}
    assert len(blocks) == expected["files_processed"]


def test_prepare_vectors_narrow_float32_is_padded_as_float64():
    found = prepare_vectors(
        np.array([[0.1, 4.0], [-4.0, np.nan]], np.float32), action_dim=4, clip_abnormal=True
    )
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [[np.float32(0.1), 0, 0, 0], [0, np.nan, 0, 0]])


def test_prepare_vectors_wide_float32_is_cut_and_stays_float32():
    raw = np.array([[0.1, np.inf, 2.0]], np.float32)
    found = prepare_vectors(raw, action_dim=2, clip_abnormal=True)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([[0.1, 0]], np.float32))
    assert raw[0, 1] == np.inf


@pytest.mark.parametrize(("action_dim", "kept"), [(None, True), (2, False)])
def test_prepare_vectors_pi_itself_is_rounded_to_the_padded_dtype(action_dim, kept):
    nearest = np.float32(np.pi)  # above pi as float64, equal to it as float32
    raw = np.array([[nearest]], np.float32)
    found = prepare_vectors(raw, action_dim=action_dim, clip_abnormal=True)
    assert (found[0, 0] == nearest) is np.bool_(kept)


def test_prepare_vectors_clipping_off_keeps_large_values():
    found = prepare_vectors(np.array([[9.0, -9.0]]), action_dim=3, clip_abnormal=False)
    assert found.tolist() == [[9.0, -9.0, 0.0]]


def test_prepare_vectors_nonpositive_width_is_config_error():
    with pytest.raises(ConfigError, match="action_dim"):
        prepare_vectors(np.eye(2), action_dim=0)


def test_update_any_block_sizes_give_the_same_stats(monkeypatch):
    monkeypatch.setattr("opentau_prep.stats.openpi._BUFFERED_VALUES", 1000)
    matrix = np.random.default_rng(0).standard_normal((2000, 5)).astype(np.float32)
    whole = RunningStats()
    whole.update_many(prepare_vectors(matrix))
    blockwise = OpenpiAccumulator(dtype=np.float32)
    for block in np.array_split(matrix, [0, 3, 50, 51, 700, 1400, 1999]):
        blockwise.update(block)
    found = blockwise.finish()
    for name, values in whole.get_statistics().items():
        np.testing.assert_array_equal(found[name], values)
    assert blockwise.frames == 2000


def test_update_rows_not_finite_are_left_out_and_counted():
    matrix = np.random.default_rng(1).standard_normal((300, 3))
    broken = np.insert(matrix, 40, [[np.nan, 0, np.nan], [0, np.nan, 0]], axis=0)
    clean, dirty = OpenpiAccumulator(dtype=np.float64), OpenpiAccumulator(dtype=np.float64)
    clean.update(matrix)
    dirty.update(broken)
    np.testing.assert_array_equal(clean.finish().q99, dirty.finish().q99)
    assert dirty.dropped.tolist() == [1, 1, 1]
    assert clean.dropped.tolist() == [0, 0, 0]


def test_update_wrong_width_or_dtype_is_data_error():
    accumulator = OpenpiAccumulator(dtype=np.float32)
    accumulator.update(np.zeros((4, 3), np.float32))
    with pytest.raises(DataError, match="width 2 after width 3"):
        accumulator.update(np.zeros((4, 2), np.float32))
    padded = OpenpiAccumulator(dtype=np.float32, action_dim=8)
    with pytest.raises(DataError, match="declared float32"):
        padded.update(np.zeros((4, 3), np.float32))


def test_finish_without_frames_is_data_error():
    with pytest.raises(DataError, match="at least 2"):
        OpenpiAccumulator(dtype=np.float32).finish()


@pytest.mark.parametrize("width", [1, 2, 5, 7])
@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_finish_padded_dims_equal_running_all_of_them(width, offset):
    rng = np.random.default_rng(width)
    matrix = (np.sin(np.arange(700) / 90)[:, np.newaxis] * rng.random(width) + offset).astype("f4")
    accumulator = OpenpiAccumulator(dtype=np.float64, action_dim=8)
    accumulator.update(matrix)
    direct = RunningStats()
    direct.update_many(prepare_vectors(matrix, action_dim=8))
    found = accumulator.finish()
    for name, values in direct.get_statistics().items():
        np.testing.assert_array_equal(found[name], values)
