from __future__ import annotations

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from builders import copy_real, tiny_dataset, tiny_episodes
from tokenizer_mixtures import mixture, sample

from opentau_prep.context import RunContext
from opentau_prep.errors import ConfigError
from opentau_prep.heads.mixture import mixture_norm_heads
from opentau_prep.normalization import normalize, normalize_mean_std
from opentau_prep.notices import collect_notices
from opentau_prep.stats.compute import prepare_stats
from opentau_prep.stats.options import StatsOptions
from opentau_prep.tokenizer import corpus as corpus_module
from opentau_prep.tokenizer.bpe import encode_points
from opentau_prep.tokenizer.fit import fit_corpus
from opentau_prep.tokenizer.folder import ProcessorSettings, processor_files
from opentau_prep.tokenizer.options import FitOptions
from opentau_prep.tokenizer.prepare import prepare_tokenizer
from opentau_prep.tokenizer.quantize import code_points, dequantize, quantize

SMALL = {"chunk_size": 8, "action_dim": 4, "total_chunks": 120, "vocab_size": 400}


def _roots(tmp_path):
    x, y = ({"robot_type": name, "control_mode": "joint"} for name in "xy")
    return [
        tiny_dataset(tmp_path, "v2.1", name="a", lengths=[12] * 10, seed=1, **x),
        tiny_dataset(tmp_path, "v3.0", name="b", lengths=[15] * 8, seed=2, **y),
        tiny_dataset(tmp_path, "v2.0", name="c", lengths=[30], seed=3, **y),
    ]


def _prepare(resolved, out, workers=1, force=False, max_length=None, **options):
    chosen = FitOptions(**{**SMALL, **options})
    context = RunContext(workers=workers, force=force)
    return prepare_tokenizer(resolved, context, chosen, out, max_length=max_length)


def test_same_seed_same_bytes_for_any_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module, "_SMALL_FILES", 0)
    monkeypatch.setattr(corpus_module, "_JOB_FILES", 4)
    resolved = mixture(tmp_path, *_roots(tmp_path))
    found = []
    for workers, seed in ((1, 0), (2, 0), (2, 1)):
        out = tmp_path / f"{workers}-{seed}"
        _prepare(resolved, out, workers=workers, seed=seed)
        files = {p.name: p.read_bytes() for p in out.iterdir()}
        report = json.loads(files.pop("fit_report.json"))
        del files["prep.json"]
        found.append((files, report))
    assert found[0] == found[1]
    assert found[0][0]["tokenizer.json"] != found[2][0]["tokenizer.json"]


def test_explicit_number_of_chunks_is_used_to_the_last_one(tmp_path):
    resolved = mixture(tmp_path, *_roots(tmp_path), weights=[0.5, 0.3, 0.2])
    document = _prepare(resolved, tmp_path / "out", total_chunks=123).document
    assert document["total_chunks_actual"] == 123
    assert document["per_dataset_chunks"] == [61, 37, 25]
    assert document["fit"]["stopped_by"] == "corpus"


def test_more_chunks_than_memory_holds_are_lowered_with_a_warning(tmp_path):
    resolved = mixture(tmp_path, *_roots(tmp_path))
    with collect_notices() as notices:
        document = _prepare(
            resolved, tmp_path / "out", total_chunks=5_000, memory_bytes=1_100_000
        ).document
    (notice,) = [n for n in notices if n.kind == "corpus_cut"]
    assert notice.details["asked"] == document["total_chunks_requested"] == 5_000
    assert document["total_chunks_actual"] <= notice.details["limit"] < 500
    assert sum(document["per_dataset_chunks"]) == document["total_chunks_actual"]


def test_report_numbers_are_those_of_the_tokenizer_that_was_written(tmp_path):
    """Lengths, forecast and min_token computed again from the files and the raw chunks."""
    resolved = mixture(tmp_path, *_roots(tmp_path))
    document = _prepare(resolved, tmp_path / "out", max_length=40).document
    sampling = sample(resolved, **SMALL)
    corpus = sampling.corpus
    values = corpus.values[0]
    min_token = -math.ceil(10 * 10 * math.sqrt(8))  # ten times the range, scale 10, 8 steps
    assert document["quantized"]["min_token"] == min_token
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    lengths = encode_points(tokenizer, code_points(values, min_token)).lengths
    total = lengths[corpus.in_share]
    told = document["token_lengths"]
    assert told["measured_on"] == "held-out episodes"
    assert told["total"]["mean"] == total.mean()
    assert told["total"]["p99"] == np.percentile(total, 99)
    assert told["total"]["truncated_share"] == np.mean(total > 40)
    keeps = told["total"]["keeps"]
    assert np.mean(total <= keeps["0.99"]) >= 0.99 > np.mean(total <= keeps["0.99"] - 1)
    assert keeps["1"] == total.max() == told["total"]["max"]
    own = lengths[corpus.is_held & (corpus.dataset == 1)]
    assert told["datasets"]["t/b"]["mean"] == own.mean()
    own = lengths[corpus.in_share & (corpus.dataset == 0)]
    assert told["heads"]["x::joint"]["p95"] == np.percentile(own, 95)
    assert "t/c" not in told["datasets"]
    assert document["not_held_out"] == ["t/c"]
    assert document["roundtrip"]["inexact_chunks"] == 0


def test_report_holds_what_earlier_fit_reports_held(tmp_path):
    resolved = mixture(tmp_path, *_roots(tmp_path), action_freq=20.0)
    _prepare(resolved, tmp_path / "out")
    document = json.loads((tmp_path / "out/fit_report.json").read_text())
    assert {
        "mixture_json", "mixture_hash_sha256", "n_datasets", "action_freq", "chunk_size",
        "action_dim", "vocab_size", "scale", "max_token_length", "seed", "total_chunks_target",
        "total_chunks_actual", "sampler", "normalization", "per_dataset_chunks", "sample_errors",
        "global_action_min", "global_action_max", "per_dataset_norm_keys", "per_head_action_stats",
        "n_norm_heads", "roundtrip", "pilot", "config_version",
    } <= set(document)  # fmt: skip
    assert document["normalization"] == "per_robot_type_control_mode"
    assert document["n_norm_heads"] == len(document["per_head_action_stats"]) == 2
    assert document["per_dataset_norm_keys"][1] == document["per_dataset_norm_keys"][2]
    assert document["mixture_hash_sha256"] == resolved.mixture.sha256
    norm = json.loads((tmp_path / "out/opentau_action_norm.json").read_text())
    assert norm == {"config_version": 1, "zero_range_center": True, "normalization": "MIN_MAX"}
    both = _prepare(resolved, tmp_path / "both", per_head_norm=False, config_version=0).document
    assert both["normalization"] == "global"
    norm = json.loads((tmp_path / "both/opentau_action_norm.json").read_text())
    assert norm == {"config_version": 0, "zero_range_center": False, "normalization": "MIN_MAX"}


@pytest.mark.parametrize(
    ("normalization", "names"), [("quantile", ("q01", "q99")), ("mean_std", ("mean", "std"))]
)
def test_fit_normalizes_with_the_two_stats_of_its_mode(normalization, names, tmp_path):
    """Chunks computed again from the frames and the heads' own stats."""
    root = tiny_dataset(tmp_path, "v3.0", name="a", lengths=[20] * 6, seed=1, robot_type="r")
    # The builder's stats have no quantiles.
    prepare_stats(mixture(tmp_path, root), RunContext(workers=1), StatsOptions())
    resolved = mixture(tmp_path, root)
    sampling = sample(resolved, normalization=normalization, scale=50.0, config_version=1)
    heads = mixture_norm_heads(resolved, max_state_dim=9, max_action_dim=4)
    first, second = (heads.per_norm_key_stats[0]["actions"][name] for name in names)
    report = _prepare(resolved, tmp_path / "out", normalization=normalization)
    stored = report.document["per_head_action_stats"]["t/a"]
    assert list(stored) == list(names)
    assert np.array_equal(stored[names[1]], second)
    assert report.document["normalization_mode"] == normalization.upper()
    draws = sampling.plans[0].draws
    frames = np.concatenate([e.actions for e in tiny_episodes(lengths=[20] * 6, seed=1)]).astype(
        "f4"
    )
    rows = np.minimum(draws.start[:, None] + np.arange(6), draws.end[:, None] - 1)
    chunks = np.zeros((len(rows), 6, 4), dtype=np.float32)
    chunks[..., : frames.shape[1]] = frames[rows]
    if normalization == "quantile":
        expected = normalize(chunks, first, second)
    else:
        expected = normalize_mean_std(chunks, first, second)
    assert np.array_equal(quantize(expected, 50.0), sampling.corpus.values[0])


def test_one_range_for_all_exists_for_min_max_only():
    with pytest.raises(ConfigError, match="min_max only"):
        FitOptions(8, normalization="mean_std", per_head_norm=False)
    with pytest.raises(ConfigError, match="normalization"):
        FitOptions(8, normalization="MIN_MAX")


def test_same_fit_same_folder_and_force_leaves_one_backup(tmp_path):
    """Times, paths and machines are not in the folder; equal files are not backed up."""
    for place in ("x", "y"):
        (tmp_path / place).mkdir()
        resolved = mixture(tmp_path / place, *_roots(tmp_path / place))
        _prepare(resolved, tmp_path / place / "out")
    folders = [
        {p.name: p.read_bytes() for p in (tmp_path / place / "out").iterdir()} for place in "xy"
    ]
    assert folders[0] == folders[1]
    (tmp_path / "y/out/fit_report.json").write_text("{}")
    for _ in range(2):
        _prepare(resolved, tmp_path / "y/out", force=True)
    assert len([p for p in (tmp_path / "y").iterdir() if p.name.startswith("out")]) == 2
    assert {p.name: p.read_bytes() for p in (tmp_path / "y/out").iterdir()} == folders[0]


def test_second_run_is_fresh_and_reads_no_frames(tmp_path):
    roots = _roots(tmp_path)
    time.sleep(0.1)  # files that were written only just before are hashed again
    _prepare(mixture(tmp_path, *roots), tmp_path / "out")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    resolved = mixture(tmp_path, *roots)
    report = _prepare(resolved, tmp_path / "out", max_length=30)
    assert report.status == "up to date"
    assert "truncated_share" in report.document["token_lengths"]["total"]
    opened = sum(entry.meta.storage.opened["data"] for entry in resolved.entries)
    assert opened == 0
    changed = {p for p, content in before.items() if p.read_bytes() != content}
    # Only the forecast that was asked for this time is new.
    assert {p.parent.name for p in changed} == {"action_tokens"}


def test_changed_data_makes_the_folder_stale_and_it_is_made_again(tmp_path):
    roots = _roots(tmp_path)
    _prepare(mixture(tmp_path, *roots), tmp_path / "out")
    from opentau_prep.demo.write import append_episode

    append_episode(roots[0], tiny_episodes(lengths=[12], seed=9)[0])
    with collect_notices() as notices:
        report = _prepare(mixture(tmp_path, *roots), tmp_path / "out")
    assert report.status == "written"
    (stale,) = [n for n in notices if n.kind == "stale_artifact"]
    assert "episodes 19 -> 20" in stale.message


def test_dataset_files_hold_each_entrys_lengths(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", name="a", lengths=[12] * 10)
    entries = [{"episodes": list(range(5))}, {"episodes": list(range(5, 10))}]
    resolved = mixture(tmp_path, root, root, entries=entries)
    report = _prepare(resolved, tmp_path / "out", max_length=25)
    path = root / f"meta/action_tokens/{resolved.mixture.mixture_id}.json"
    content = json.loads(path.read_text())
    assert [entry["dataset"] for entry in content["entries"]] == ["t/a#0", "t/a#1"]
    for entry in content["entries"]:
        assert entry["token_lengths"] == json.loads(
            json.dumps(report.document["token_lengths"]["datasets"][entry["dataset"]])
        )
    assert report.artifacts == {"t/a#0": "written", "t/a#1": "written"}


def test_nothing_to_hold_out_is_said_and_measured_on_what_was_fitted(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[40])
    with collect_notices() as notices:
        document = _prepare(mixture(tmp_path, root), tmp_path / "out").document
    assert document["token_lengths"]["measured_on"] == "fitted chunks"
    assert "no_held_out" in {n.kind for n in notices}


def test_skip_fit_does_not_replace_a_tokenizer(tmp_path):
    resolved = mixture(tmp_path, *_roots(tmp_path))
    alone = _prepare(resolved, tmp_path / "alone", skip_fit=True)
    assert alone.status == "written"
    assert sorted(p.name for p in (tmp_path / "alone").iterdir()) == [
        "fit_report.json",
        "prep.json",
    ]
    _prepare(resolved, tmp_path / "out")
    before = (tmp_path / "out/fit_report.json").read_bytes()
    assert _prepare(resolved, tmp_path / "out", skip_fit=True).status == "shown"
    assert (tmp_path / "out/fit_report.json").read_bytes() == before


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"holdout": 1.0}, "holdout"),
        ({"scale": 0.0}, "scale"),
        ({"vocab_size": 100}, "vocab_size"),
        ({"total_chunks": 0}, "total_chunks"),
        ({"seed": -1}, "seed"),
    ],
)
def test_fit_options_impossible_value_raises(wrong, where):
    with pytest.raises(ConfigError, match=where):
        FitOptions(**{"chunk_size": 5, **wrong})


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    roots = [copy_real(name, folder) for name in ("g1_pick_bottle", "so101_record_test")]
    options = FitOptions(50, action_dim=34, holdout=0.1)
    sampling = sample(
        mixture(folder, *roots), chunk_size=50, action_dim=34, total_chunks="auto", holdout=0.1
    )
    return sampling.corpus, options, fit_corpus(sampling.corpus, options, 2)


@pytest.mark.slow
def test_auto_on_published_data_is_a_third_shorter_than_cap_64(real):
    corpus, options, fitted = real
    capped = fit_corpus(corpus, replace(options, total_chunks=1000, max_token_length=64), 2)
    assert fitted.fit.chosen.mean <= capped.fit.chosen.mean * 2 / 3
    assert fitted.fit.stopped_by == "converged"
    assert fitted.fit.chosen.n_chunks < (~corpus.is_held).sum()


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.0, 9.0])
def test_held_out_chunks_of_published_data_decode_exactly(real, factor, tmp_path):
    transformers = pytest.importorskip("transformers")
    corpus, _, fitted = real
    settings = ProcessorSettings(10.0, 2048, fitted.min_token, action_dim=34, time_horizon=50)
    for name, content in processor_files(fitted.fit.tokenizer, settings).items():
        (tmp_path / name).write_bytes(content)
    processor = transformers.AutoProcessor.from_pretrained(str(tmp_path), trust_remote_code=True)
    held = corpus.values[0][corpus.is_held]
    chunks = dequantize(held, 10.0, time_horizon=50, action_dim=34).astype(np.float32)
    chunks *= np.float32(factor)
    quantized = quantize(chunks, 10.0)
    assert (quantized.min(axis=1) < -71).any() == (factor > 1)
    ids = processor(chunks)
    points = code_points(quantized, fitted.min_token)
    assert ids == encode_points(fitted.fit.tokenizer, points).rows()
    decoded = processor.decode(ids)
    expected = dequantize(quantized, 10.0, time_horizon=50, action_dim=34)
    assert np.array_equal(decoded, expected)
    assert processor.malformed_chunks == 0


def test_numbers_beyond_the_headroom_are_counted_with_their_error(tmp_path):
    """The stats of one head claim a narrow range, so its chunks lie far outside."""
    root = tiny_dataset(tmp_path, "v2.1", name="far", lengths=[12] * 10, seed=1, robot_type="r")
    path = root / "meta/episodes_stats.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        stats = row["stats"]["action"]
        stats["min"], stats["max"] = ([0.0] * len(v) for v in (stats["min"], stats["max"]))
        stats["max"] = [1e-5] * len(stats["max"])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    resolved = mixture(tmp_path, root)
    with collect_notices() as notices:
        document = _prepare(resolved, tmp_path / "out", headroom=1).document
    clipped = document["quantized"]["clipped"]
    values = sample(resolved, **SMALL).corpus.values[0].astype(np.int64)
    low, high = document["quantized"]["min_token"], document["quantized"]["min_token"] + 0xD7FF
    lost = values - values.clip(low, high)
    assert clipped["values"] == np.count_nonzero(lost) > 0
    assert clipped["chunks"] == np.count_nonzero(lost.any(axis=1))
    error = dequantize(lost, 10.0, time_horizon=8, action_dim=4)
    assert clipped["max_abs_error"] == pytest.approx(np.abs(error).max())
    assert [n.details["chunks"] for n in notices if n.kind == "values_clipped"] == [
        clipped["chunks"]
    ]


def test_auto_is_the_same_whatever_memory_there_is_if_it_is_enough(tmp_path, monkeypatch):
    from opentau_prep.tokenizer import choose

    monkeypatch.setattr(choose, "_PILOT_CHUNKS", 10)
    resolved = mixture(tmp_path, *_roots(tmp_path))
    auto = {"total_chunks": "auto", "vocab_size": 258, "max_token_length": 16}
    for name, memory in (("much", 1 << 33), ("little", 600_000)):
        document = _prepare(resolved, tmp_path / name, memory_bytes=memory, **auto).document
        assert document["fit"]["stopped_by"] == "converged"
    same = [(tmp_path / name / "tokenizer.json").read_bytes() for name in ("much", "little")]
    assert same[0] == same[1]
