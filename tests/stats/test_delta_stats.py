"""Stats of delta actions, against OpenTau's (scripts/parity_opentau.py) and against chunks put
together one frame at a time."""

import hashlib
import json
from importlib.resources import files

import numpy as np
import pytest
from builders import VERSIONS, tiny_dataset
from cli_runner import run_cli
from golden_io import assert_same_bits, decode, golden_cases, number
from jsonschema import Draft202012Validator
from stats_runs import frames_of

from opentau_prep import load_mixture
from opentau_prep.config.load import mixture_from_roots
from opentau_prep.context import RunContext
from opentau_prep.demo.spec import DatasetSpec, EpisodeData
from opentau_prep.demo.write import write_dataset
from opentau_prep.errors import ConfigError, DataError, MetadataError
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.notices import collect_notices
from opentau_prep.stats import load_delta_stats, prepare_stats
from opentau_prep.stats.options import StatsOptions

MAP = {0: 2, 1: 0}


def _mixture(tmp_path, root, mixture=None, **entry):
    fields = {
        "repo_id": "tiny",
        "root": str(root),
        "use_delta_joint_actions": True,
        "delta_action_state_map": {str(a): s for a, s in MAP.items()},
        **entry,
    }
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps({"datasets": [fields], **(mixture or {})}))
    return resolve_mixture(load_mixture(path))


def _prepare(resolved, **options):
    report = prepare_stats(resolved, RunContext(workers=1), StatsOptions(**options))
    (result,) = report.delta
    return result


def _naive(root, episodes, *, chunk_size, fps, freq, strategy, stride=1):
    """Every chunk, one step after the other."""
    columns, episode = frames_of(root)
    rows = np.concatenate([np.flatnonzero(episode == e) for e in episodes])
    states, actions = columns["observation.state"][rows], columns["action"][rows]
    owner = episode[rows]
    out = []
    for start in range(0, len(rows), stride):
        mine = np.flatnonzero(owner == owner[start])
        for k in range(chunk_size):
            soft = min(max(start + (k / freq) * fps, mine[0]), mine[-1])
            if strategy == "nearest":
                action = actions[int(np.rint(soft))].copy()
            else:
                low, high, w = int(np.floor(soft)), int(np.ceil(soft)), soft - np.floor(soft)
                action = actions[low].astype(float) * (1 - w) + actions[high] * w
            for a, s in MAP.items():
                action[a] -= states[start][s]
            out.append(action)
    return np.array(out)


@pytest.mark.parametrize("case", golden_cases("delta_stats"))
def test_delta_stats_are_the_bits_that_training_computes(tmp_path, case):
    spec = DatasetSpec(case["version"], fps=30, episodes_per_file=case["episodes_per_file"])
    episodes = [
        [np.array([[number(v) for v in row] for row in rows], np.float32) for rows in episode]
        for episode in case["frames"]
    ]
    write_dataset(tmp_path / "d", spec, [EpisodeData(*frames) for frames in episodes])
    fields = {"vector_resample_strategy": case["strategy"]}
    fields |= {"action_freq": case["action_freq"], "delta_stats_max_rows": case["max_rows"]}
    entry = {name: case[name] for name in ("state_index", "action_index", "episodes")}
    entry["delta_action_state_map"] = case["delta_map"]
    resolved = _mixture(tmp_path, tmp_path / "d", fields, **entry)
    assert _prepare(resolved, chunk_size=case["chunk_size"]).status == "written"
    found = load_delta_stats(resolved.entries[0], resolved.mixture)
    assert_same_bits(found.stats, decode(case["expected"]))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("freq", "strategy"), [(None, "nearest"), (45, "nearest"), (20, "linear")])
def test_delta_stats_are_of_chunks_made_one_by_one(tmp_path, version, freq, strategy):
    root = tiny_dataset(tmp_path, version, lengths=[9, 12, 7, 15], fps=30)
    fields = {"action_freq": freq, "vector_resample_strategy": strategy}
    resolved = _mixture(tmp_path, root, fields, excluded_episodes=[0])
    result = _prepare(resolved, chunk_size=6)
    assert (result.status, result.starts) == ("written", 34)
    found = load_delta_stats(resolved.entries[0], resolved.mixture)
    values = _naive(
        root, [1, 2, 3], chunk_size=6, fps=30, freq=freq or 30, strategy=strategy
    ).astype(float)
    columns, episode = frames_of(root)
    states = columns["observation.state"][episode > 0].astype(float)
    for feature, expected in (("actions", values), ("state", states)):
        stats = found.stats[feature]
        assert stats["count"].tolist() == [len(expected)]
        for stat in ("min", "max", "mean", "std"):
            assert stats[stat].dtype == np.float32
            wanted = getattr(expected, stat)(axis=0)
            np.testing.assert_allclose(stats[stat], wanted, rtol=1e-6, atol=1e-6)
    assert found.sketch.count.tolist() == [len(values)] * 2
    np.testing.assert_allclose(found.sketch.quantiles([0, 1])[1], values.max(axis=0), rtol=1e-6)


def test_delta_stats_of_numbers_that_are_no_vectors_are_refused_as_by_training(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tiny_dataset(tmp_path, "v3.0", lengths=[20], state_dim=3, action_dim=1)
    (path,) = root.glob("data/*/*.parquet")
    table = pq.read_table(path)
    flat = pa.array(np.stack(table["action"].to_numpy())[:, 0])
    place = table.column_names.index("action")
    pq.write_table(table.set_column(place, "action", flat), path)
    resolved = _mixture(tmp_path, root, delta_action_state_map={"0": 0})
    with pytest.raises(DataError, match="vectors only"):
        _prepare(resolved, chunk_size=4)


def test_exact_stats_of_an_older_version_are_stale_and_are_made_again(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[20, 30])
    resolved = _mixture(tmp_path, root)
    path = _prepare(resolved, chunk_size=4).path
    record = json.loads(path.read_text())
    del record["estimator"]
    path.write_text(json.dumps({**record, "column": "action", "quantiles": "exact"}))
    provenance = root / "meta/prep/delta_stats" / path.name
    noted = json.loads(provenance.read_text())
    del noted["parameters"]["estimator"]
    noted |= {"schema_version": 2, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    provenance.write_text(json.dumps(noted))
    with pytest.raises(MetadataError, match="is stale: it holds exact stats"):
        load_delta_stats(resolved.entries[0], resolved.mixture)
    assert _prepare(resolved, chunk_size=4).status == "written"
    assert load_delta_stats(resolved.entries[0], resolved.mixture).starts == 50


def test_load_delta_stats_missing_or_ambiguous_says_what_to_do(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[20, 30])
    resolved = _mixture(tmp_path, root)
    entry, mixture = resolved.entries[0], resolved.mixture
    with pytest.raises(MetadataError, match="opentau-prep stats --mixture-json"):
        load_delta_stats(entry, mixture)
    for size in (4, 8):
        _prepare(resolved, chunk_size=size)
    assert load_delta_stats(entry, mixture, chunk_size=8).chunk_size == 8
    with pytest.raises(MetadataError, match="4, 8"):
        load_delta_stats(entry, mixture)
    with pytest.raises(MetadataError, match="chunks of 5"):
        load_delta_stats(entry, mixture, chunk_size=5)
    plain = resolve_mixture(mixture_from_roots([root]))
    with pytest.raises(ConfigError, match="use_delta_joint_actions"):
        load_delta_stats(plain.entries[0], plain.mixture)


def test_load_delta_stats_of_a_dataset_that_grew_warns(tmp_path):
    from builders import tiny_episodes

    from opentau_prep.demo.append import append_episode

    root = tiny_dataset(tmp_path, "v2.1", lengths=[20, 30])
    _prepare(_mixture(tmp_path, root), chunk_size=4)
    append_episode(root, tiny_episodes(lengths=[10])[0])
    resolved = _mixture(tmp_path, root)
    with collect_notices() as said:
        load_delta_stats(resolved.entries[0], resolved.mixture)
    assert [n.kind for n in said if n.kind.startswith("stale")] == ["stale_delta_stats"]
    assert "episodes 2 -> 3" in said[-1].message


def test_stats_command_makes_delta_stats_once(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[20, 30])
    _mixture(tmp_path, root)
    args = ("stats", "--mixture-json", tmp_path / "mixture.json", "--chunk-size", 4, "--json")
    assert run_cli(*args).json["delta"][0]["status"] == "written"
    again = run_cli(*args)
    assert again.code == 0
    assert again.json["delta"][0]["status"] == "up to date"
    (file,) = root.glob("meta/delta_stats/*.json")
    schema = (files("opentau_prep") / "schemas/delta_stats.schema.json").read_text("utf-8")
    Draft202012Validator(json.loads(schema)).validate(json.loads(file.read_text("utf-8")))


def test_delta_stats_a_map_beyond_the_columns_is_config_error(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[20])
    _mixture(tmp_path, root, delta_action_state_map={"0": 7})
    ran = run_cli("stats", "--mixture-json", tmp_path / "mixture.json")
    assert ran.code == 2
    assert "delta_action_state_map" in ran.err


def test_stats_command_one_dataset_in_entries_of_their_own_maps_takes_workers(tmp_path):
    root = tiny_dataset(tmp_path, "v2.1", lengths=[20, 30])
    entry = {"repo_id": "tiny", "root": str(root), "use_delta_joint_actions": True}
    maps = ({"0": 2}, {"1": 0})
    content = {"datasets": [{**entry, "delta_action_state_map": each} for each in maps]}
    (tmp_path / "mixture.json").write_text(json.dumps(content))
    args = ("--mixture-json", tmp_path / "mixture.json", "--chunk-size", 4, "--workers", 2)
    ran = run_cli("stats", *args, "--json")
    assert ran.code == 0, ran.err
    assert [delta["status"] for delta in ran.json["delta"]] == ["written", "written"]
