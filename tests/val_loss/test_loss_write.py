"""Files that ranks write read back to what they were written from, to the last bit."""

import math
import threading

import numpy as np
import pytest

from opentau_prep import ArtifactError, ConfigError, DataError, GroupedLosses, write_losses
from opentau_prep.val_loss.files import read_losses

SAMPLES = {
    "dataset_index": np.array([0, 0, 1, -1, 0, 1], np.int32),
    "dataset": ["a", "a", "NaN", 'we"ird\n', "a", "NaN"],
    "control_mode": ["joint", None, " ee ", float("nan"), "unknown", "Infinity"],
    "losses": {
        "MSE": ([1e16, 1.0, -1e16, 5e-324, math.nan, 0.1], [1, 2, 0, 0.5, 1, 3]),
        "CE": (np.array([0.1, math.inf, 0.3, 1e308, -0.0, 7.0]), np.full(6, 3, np.float32)),
    },
}


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "parquet"])
def test_write_losses_read_back_is_the_same_to_the_last_bit(tmp_path, suffix):
    path = tmp_path / "folder" / f"rank-0.{suffix}"
    write_losses(path, **SAMPLES)
    assert read_losses([path]).state() == GroupedLosses().update(**SAMPLES).state()


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_write_losses_rank_without_samples_is_read(tmp_path, suffix):
    write_losses(tmp_path / f"0.{suffix}", **SAMPLES)
    empty = {"dataset_index": [], "dataset": [], "control_mode": []}
    write_losses(tmp_path / f"1.{suffix}", **empty, losses={"MSE": ([], []), "CE": ([], [])})
    found = read_losses([tmp_path / f"0.{suffix}", tmp_path / f"1.{suffix}"])
    assert found.state() == GroupedLosses().update(**SAMPLES).state()


def test_write_losses_many_ranks_at_once_each_file_whole(tmp_path):
    ranks = [
        threading.Thread(target=write_losses, args=(tmp_path / f"{rank}.jsonl",), kwargs=SAMPLES)
        for rank in range(8)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{rank}.jsonl" for rank in range(8)]
    groups = read_losses(tmp_path.iterdir()).result()["groups"]
    assert sum(group["samples"] for group in groups) == 8 * 6


def test_write_losses_wrong_suffix_or_no_loss_is_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"losses\.csv"):
        write_losses(tmp_path / "losses.csv", **SAMPLES)
    with pytest.raises(ConfigError, match="at least one loss"):
        write_losses(tmp_path / "r.jsonl", **{**SAMPLES, "losses": {}})


def test_write_losses_values_that_are_not_parallel_write_nothing(tmp_path):
    with pytest.raises(DataError, match="5 values for 6"):
        write_losses(tmp_path / "r.jsonl", **{**SAMPLES, "dataset": ["a"] * 5})
    assert not list(tmp_path.iterdir())


def test_write_losses_into_a_file_instead_of_a_folder_is_artifact_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="file"):
        write_losses(tmp_path / "file" / "r.jsonl", **SAMPLES)
