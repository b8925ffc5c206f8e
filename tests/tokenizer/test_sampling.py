from __future__ import annotations

import json

import numpy as np
import pytest
from builders import VERSIONS, copy_real, tiny_dataset, tiny_episodes
from tokenizer_mixtures import (
    counted_episodes,
    mixture,
    native_chunks,
    raw_episodes,
    sample,
    window,
)

from opentau_prep.context import RunContext
from opentau_prep.errors import ConfigError, DataError, MetadataError
from opentau_prep.notices import collect_notices
from opentau_prep.stats.compute import prepare_stats
from opentau_prep.stats.options import StatsOptions
from opentau_prep.tokenizer.options import FitOptions
from opentau_prep.tokenizer.plan import split_episodes
from opentau_prep.tokenizer.report import round_trips

SHARP = {"scale": 2000.0, "holdout": 0.25}


def _starts(plan, episode_lengths):
    """Return (episode, offset) of each chunk by its start row in the concatenation."""
    table = [(e, i) for e in plan.entry.episodes.tolist() for i in range(episode_lengths[e])]
    return [table[row] for row in plan.draws.start.tolist()]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("action_freq", [None, 10.0])
def test_sampled_chunks_are_windows_of_the_raw_rows(version, action_freq, tmp_path):
    lengths = [9, 14, 5, 30]
    root = tiny_dataset(tmp_path, version, episodes=counted_episodes(lengths), fps=20)
    sampling = sample(mixture(tmp_path, root, action_freq=action_freq), **SHARP)
    raw = raw_episodes(root)
    chunks = native_chunks(sampling, {})
    (plan,) = sampling.plans
    starts = _starts(plan, lengths)
    assert len(chunks) == len(starts) > 60
    for chunk, (episode, offset) in zip(chunks, starts, strict=True):
        # 20 Hz data at 10 Hz: every second row, where no rounding can hide.
        expected = window(raw[episode], offset, 6, step=2.0 if action_freq else 1.0)
        assert np.abs(chunk[:, :2] - expected).max() < 0.2
    assert {episode for episode, _ in starts} == {0, 1, 2, 3}


@pytest.mark.parametrize("seed", [0, 1])
def test_sampled_chunks_of_published_v3_file_are_of_the_right_episode(seed, tmp_path):
    root = copy_real("so101_record_test", tmp_path)
    options = {"chunk_size": 30, "action_dim": 6, "total_chunks": 40, "seed": seed, **SHARP}
    sampling = sample(mixture(tmp_path, root), **options)
    raw = raw_episodes(root)
    chunks = native_chunks(sampling, options)
    right = 0
    for chunk, slot in zip(chunks, sampling.plans[0].draws.episode.tolist(), strict=True):
        # Every window of every episode, by brute force: the nearest must lie in the drawn episode.
        distance = {
            (episode, start): np.abs(chunk - window(rows, start, 30)).max()
            for episode, rows in raw.items()
            for start in range(0, len(rows))
            if np.abs(chunk[0] - rows[start]).max() < 0.5
        }
        nearest = min(distance, key=distance.get)
        assert distance[nearest] < 0.2
        same = [key for key, value in distance.items() if value < 0.2]
        right += any(episode == slot for episode, _ in same)
    assert right == len(chunks) >= 60


def test_half_row_ties_round_by_the_row_in_the_whole_selection(tmp_path):
    # 30 Hz frames at 20 Hz: every second step falls between two rows, which of them depends on
    # whether the episode's first row is even.
    lengths = [7, 11, 13, 12]
    root = tiny_dataset(tmp_path, "v3.0", episodes=counted_episodes(lengths), fps=30)
    sampling = sample(mixture(tmp_path, root, action_freq=20.0), **SHARP)
    chunks = native_chunks(sampling, {})
    (plan,) = sampling.plans
    flat = np.concatenate([np.arange(length) for length in lengths])
    odd = 0
    for chunk, start, end in zip(chunks, plan.draws.start, plan.draws.end, strict=True):
        rows = [round(min(start + k / 20.0 * 30, end - 1)) for k in range(6)]
        assert np.abs(chunk[:, 0] - flat[rows]).max() < 0.2
        local = [round(min(k / 20.0 * 30, end - 1 - start)) for k in range(6)]
        odd += rows != [start + row for row in local]
    assert odd > 5


def test_linear_strategy_interpolates(tmp_path):
    root = tiny_dataset(tmp_path, "v3.0", episodes=counted_episodes([20, 20, 20]), fps=30)
    resolved = mixture(tmp_path, root, action_freq=45.0, vector_resample_strategy="linear")
    sampling = sample(resolved, **SHARP)
    (plan,) = sampling.plans
    offset = plan.draws.start - plan.draws.first
    expected = np.minimum(offset[:, None] + np.arange(6) / 45.0 * 30, 19)
    assert np.abs(native_chunks(sampling, {})[:, :, 0] - expected).max() < 0.2


def test_excluded_and_selected_episodes_are_all_that_is_drawn(tmp_path):
    root = tiny_dataset(tmp_path, "v3.0", episodes=counted_episodes([9, 8, 7, 6, 5]))
    entry = {"episodes": [0, 1, 3, 4], "excluded_episodes": [1]}
    sampling = sample(mixture(tmp_path, root, entries=[entry]), **SHARP)
    assert set(sampling.plans[0].draws.episode.tolist()) == {0, 3, 4}


def test_held_out_episodes_are_never_fitted_on(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", episodes=counted_episodes([9] * 10))
    (plan,) = sample(mixture(tmp_path, root), holdout=0.3).plans
    held = set(plan.held_episodes.tolist())
    assert len(held) == 3
    own = plan.draws.slot < plan.n_fit
    assert set(plan.draws.episode[~own].tolist()) <= held
    assert set(plan.draws.episode[own].tolist()) == set(range(10)) - held


def test_action_index_orders_and_delta_actions_subtract_the_start_state(tmp_path):
    root = tiny_dataset(tmp_path, "v3.0", episodes=tiny_episodes(lengths=[9] * 4, action_dim=3))
    entry = {
        "action_index": [2, 0],
        "state_index": [1, 2],
        "use_delta_joint_actions": True,
        "delta_action_state_map": {"2": 1},
    }
    resolved = mixture(tmp_path, root, entries=[entry])
    prepare_stats(resolved, RunContext(workers=1), StatsOptions(chunk_size=6))
    with collect_notices() as notices:
        sampling = sample(resolved, **SHARP)
    assert [n.message for n in notices if n.kind == "absolute_dims"] == [
        "action dims that delta_action_state_map does not name stay absolute: t/tiny (dims 1)"
    ]
    action, state = raw_episodes(root), raw_episodes(root, "observation.state")
    chunks = native_chunks(sampling, {})
    for chunk, (episode, at) in zip(chunks, _starts(sampling.plans[0], [9] * 4), strict=True):
        rows = window(action[episode], at, 6)
        expected = np.stack([rows[:, 2] - state[episode][at, 1], rows[:, 0]], axis=1)
        assert np.abs(chunk[:, :2] - expected).max() < 0.01
    assert np.abs(chunks[:, :, 2:]).max() < 1e-5


def test_delta_map_of_a_dropped_column_is_an_error(tmp_path):
    root = tiny_dataset(tmp_path, "v3.0")
    entry = {
        "action_index": [1],
        "use_delta_joint_actions": True,
        "delta_action_state_map": {"0": 0},
    }
    with pytest.raises(ConfigError, match="action column 0, which action_index drops"):
        sample(mixture(tmp_path, root, entries=[entry]))


@pytest.mark.parametrize("n_episodes", [2, 7, 40])
def test_held_out_episodes_are_those_of_a_group_shuffle_split(n_episodes, tmp_path):
    from sklearn.model_selection import GroupShuffleSplit

    resolved = mixture(tmp_path, tiny_dataset(tmp_path, lengths=[3] * n_episodes))
    _, held = split_episodes(resolved.entries[0], FitOptions(8, seed=3, holdout=0.3))
    seed = int(np.random.SeedSequence((3, 0)).generate_state(1)[0])
    share = int(np.ceil(0.3 * n_episodes))
    split = GroupShuffleSplit(n_splits=1, test_size=share, random_state=seed)
    _, expected = next(split.split(np.arange(n_episodes), groups=np.arange(n_episodes)))
    assert np.flatnonzero(held).tolist() == sorted(expected.tolist())


def test_native_dims_beyond_action_dim_are_dropped_with_one_warning(tmp_path):
    wide = tiny_dataset(tmp_path, "v2.1", name="wide", action_dim=6, robot_type="w")
    wider = tiny_dataset(tmp_path, "v2.1", name="wider", action_dim=9, robot_type="x")
    with collect_notices() as notices:
        sampling = sample(mixture(tmp_path, wide, wider), truncate_dims=True, **SHARP)
    (notice,) = [n for n in notices if n.kind == "truncated_dims"]
    assert "t/wide (actions 6 -> 4)" in notice.message
    assert "t/wider (actions 9 -> 4)" in notice.message
    assert sampling.corpus.values[0].shape[1] == 6 * 4
    with pytest.raises(ConfigError, match=r"t/wider: actions has 9 dims.*--truncate-dims"):
        sample(mixture(tmp_path, wide, wider), **SHARP)


@pytest.mark.parametrize(("version", "padded"), [(0, -1.0), (1, 0.0)])
def test_padded_dims_follow_the_config_version(version, padded, tmp_path):
    root = tiny_dataset(tmp_path, "v2.1")
    sampling = sample(mixture(tmp_path, root), config_version=version, scale=10.0)
    first = sampling.corpus.values[0].reshape(-1, 6, 4)[:, 0, 2:]  # the mean over time, times √6
    assert np.unique(first).tolist() == [round(padded * 6**0.5 * 10)]


def test_dataset_shorter_than_a_chunk_contributes_clipped_chunks(tmp_path):
    root = tiny_dataset(tmp_path, "v3.0", episodes=counted_episodes([3, 2]))
    sampling = sample(mixture(tmp_path, root), chunk_size=20, **SHARP)
    chunks = native_chunks(sampling, {"chunk_size": 20})
    assert np.abs(np.diff(chunks[:, 3:, 0], axis=1)).max() < 0.1
    assert set(np.rint(chunks[:, -1, 0]).astype(int)) == {1, 2}


def test_budgets_follow_weights_and_add_up(tmp_path):
    roots = [tiny_dataset(tmp_path, "v2.1", name=n, lengths=[9, 9]) for n in "abc"]
    sampling = sample(mixture(tmp_path, *roots, weights=[0.5, 0.0, 0.3]), total_chunks=77)
    assert sampling.corpus.counts(3) == [48, 0, 29]
    assert sampling.plans[1].n_held == 0


@pytest.mark.parametrize(("for_all", "expected"), [(16_000, 9), (6, 2), (1, 1)])
def test_held_out_chunks_of_small_datasets_are_bounded_in_all(
    tmp_path, monkeypatch, for_all, expected
):
    monkeypatch.setattr("opentau_prep.tokenizer.plan.HELD_OUT_FOR_ALL", for_all)
    roots = [tiny_dataset(tmp_path, "v2.1", name=n, lengths=[9, 9]) for n in "abc"]
    sampling = sample(mixture(tmp_path, *roots, weights=[1.0, 1e-9, 1e-9]), total_chunks=77)
    assert [plan.n_held for plan in sampling.plans[1:]] == [expected, expected]


def test_null_weights_are_in_proportion_to_selected_frames(tmp_path):
    roots = [tiny_dataset(tmp_path, "v2.1", name=n, lengths=[10, 10, 20]) for n in "ab"]
    resolved = mixture(tmp_path, *roots, entries=[{}, {"episodes": [0, 1]}])
    assert sample(resolved, total_chunks=60).corpus.counts(2) == [40, 20]


def test_duplicated_ids_without_tags_keep_their_own_range(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", episodes=counted_episodes([9, 30]), robot_type=None)
    resolved = mixture(tmp_path, root, root, entries=[{"episodes": [0]}, {"episodes": [1]}])
    sampling = sample(resolved)
    assert list(sampling.heads.keys) == ["t/tiny#0", "t/tiny#1"]
    assert [sampling.heads.stats_of(i)[1][0] for i in (0, 1)] == [8.0, 29.0]
    both = sample(resolved, per_head_norm=False)
    assert [both.heads.stats_of(i)[1][0] for i in (0, 1)] == [29.0, 29.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_chunks_are_left_out_and_counted(bad, tmp_path):
    episodes = counted_episodes([12, 12, 12, 12])
    root = tiny_dataset(tmp_path, "v2.1", episodes=episodes)
    _spoil(root, episode=2, bad=bad)
    with collect_notices() as notices:
        sampling = sample(mixture(tmp_path, root), holdout=0.0)
    starts = _starts(sampling.plans[0], [12] * 4)
    spoiled = sum(episode == 2 and at + 5 >= 8 for episode, at in starts)
    assert spoiled > 3
    assert sampling.corpus.n_left_out == (spoiled,)
    assert sampling.corpus.counts(1) == [60 - spoiled]
    (notice,) = [n for n in notices if n.kind == "chunks_left_out"]
    assert (notice.dataset, notice.details["chunks"]) == ("t/tiny", spoiled)


def test_dataset_of_nothing_but_non_finite_chunks_is_an_error(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", episodes=counted_episodes([12]))
    _spoil(root, episode=0, bad=np.nan, whole=True)
    with pytest.raises(DataError, match=r"t/tiny: every one of 60 .* not finite"):
        sample(mixture(tmp_path, root))


def test_failing_dataset_is_named_or_left_out_when_going_on(tmp_path):
    roots = [tiny_dataset(tmp_path, "v2.1", name=n) for n in ("good", "bad")]
    next(roots[1].glob("data/*/episode_000001.parquet")).write_bytes(b"version https://git-lfs")
    resolved = mixture(tmp_path, *roots)
    with pytest.raises(DataError, match="t/bad"):
        sample(resolved)
    sampling = sample(resolved, keep_going=True)
    assert [failure.label for failure in sampling.corpus.failures] == ["t/bad"]
    assert set(sampling.corpus.dataset.tolist()) == {0}


def test_datasets_without_stats_are_all_named(tmp_path):
    roots = [tiny_dataset(tmp_path, "v2.1", name=n) for n in ("a", "b", "c")]
    for root in roots[1:]:
        (root / "meta/episodes_stats.jsonl").unlink()
    with pytest.raises(MetadataError, match=r"(?s)t/b.*t/c"):
        sample(mixture(tmp_path, *roots), keep_going=True)


def test_incomplete_stats_are_told_of_the_features_in_use_only(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", quantiles=True)
    path = root / "meta/episodes_stats.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for stats in rows[1]["stats"].values():
        stats.pop("q01", None)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with collect_notices() as said:
        sample(mixture(tmp_path, root))
    told = [n.message for n in said if n.kind == "dropped_quantiles"]
    assert len(told) == 2
    assert all("'action'" in text or "'observation.state'" in text for text in told)


def test_empty_dataset_is_named_or_left_out(tmp_path):
    roots = [tiny_dataset(tmp_path, "v2.1", name=n) for n in ("full", "empty")]
    table = roots[1] / "meta/episodes.jsonl"
    lines = table.read_text().replace('"length": ', '"length": 0, "was": ')
    table.write_text(lines)
    resolved = mixture(tmp_path, *roots)
    with pytest.raises(DataError, match="t/empty: has no frames"):
        sample(resolved)
    sampling = sample(resolved, keep_going=True)
    assert [failure.label for failure in sampling.corpus.failures] == ["t/empty"]


def test_file_shorter_than_the_table_says_is_used_to_its_end(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", episodes=counted_episodes([9, 9]))
    table = root / "meta/episodes.jsonl"
    table.write_text(table.read_text().replace('"length": 9', '"length": 14'))
    with collect_notices() as notices:
        sampling = sample(mixture(tmp_path, root), **SHARP)
    assert any(n.kind == "episode_lengths_differ" for n in notices)
    assert native_chunks(sampling, {})[:, :, 0].max() < 8.2


def test_round_trip_errors_are_those_of_the_held_out_chunks(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", episodes=tiny_episodes(lengths=[20] * 6))
    sampling = sample(mixture(tmp_path, root), scale=4.0, holdout=0.5)
    held = sampling.corpus.is_held
    coarse = native_chunks(sampling, {}, scale=4.0)[held][..., :2]
    raw = raw_episodes(root)
    starts = np.array(_starts(sampling.plans[0], [20] * 6))[held]
    exact = np.stack([window(raw[e], at, 6) for e, at in starts])
    found = round_trips(sampling.plans, sampling.corpus, sampling.heads, 4.0)
    assert found["native_mse"] == pytest.approx(np.mean((coarse - exact) ** 2), rel=1e-4)
    assert found["native_mse"] > 1e-4
    assert found["datasets"]["t/tiny"]["native_max_abs_error"] == pytest.approx(
        np.abs(coarse - exact).max(), rel=1e-4
    )


def _spoil(root, *, episode, bad, whole=False):
    """Put a value that is not finite into the last four frames of an episode's file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = next(root.glob(f"data/*/episode_{episode:06d}.parquet"))
    table = pq.read_table(path)
    rows = np.array(table["action"].to_pylist(), dtype=np.float32)
    rows[0 if whole else 8 :, 1] = bad
    at = table.column_names.index("action")
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    pq.write_table(table.set_column(at, "action", column), path)


@pytest.mark.parametrize(("version", "files"), [("v2.1", 12), ("v3.0", 4)])
def test_each_needed_file_is_opened_once(version, files, tmp_path, monkeypatch):
    from opentau_prep.tokenizer import corpus

    monkeypatch.setattr(corpus, "_JOB_FILES", 2)
    monkeypatch.setattr(corpus, "_JOB_CHUNKS", 7)
    root = tiny_dataset(tmp_path, version, episodes=counted_episodes([9] * 12), episodes_per_file=3)
    resolved = mixture(tmp_path, root)
    sample(resolved, total_chunks=90)
    assert resolved.entries[0].meta.storage.opened["data"] == files


def test_files_without_a_drawn_chunk_are_not_opened(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", episodes=counted_episodes([9] * 30))
    resolved = mixture(tmp_path, root)
    sampling = sample(resolved, total_chunks=4, holdout=0.0)
    needed = len(set(sampling.plans[0].draws.episode.tolist()))
    assert resolved.entries[0].meta.storage.opened["data"] == needed <= 4
