"""`forecast`: planted faults get their right names, and right stats no finding at all."""

from __future__ import annotations

import json

import numpy as np
import pytest
from builders import copy_real, tiny_dataset
from stats_files import (
    lerobot_checkpoint,
    lerobot_stats,
    openpi_stats,
    rlds_statistics,
    safetensors,
    stats_of,
)
from typer.testing import CliRunner

from opentau_prep.cli.app import app
from opentau_prep.config.load import mixture_from_roots
from opentau_prep.context import RunContext
from opentau_prep.demo.spec import DatasetSpec, DemoDataset, DemoTask, EpisodeData, demo_episodes
from opentau_prep.demo.trajectories import ARM6
from opentau_prep.errors import ConfigError, MetadataError
from opentau_prep.forecast import ForecastOptions, load_stats_source, make_forecast
from opentau_prep.metadata.resolve import resolve_mixture

GRIPPER = ARM6.grippers[0]
WRITERS = {
    "LeRobot stats": lambda folder, columns: lerobot_stats(folder / "stats.json", columns),
    "openpi norm stats": lambda folder, columns: openpi_stats(folder / "norm_stats.json", columns),
    "RLDS statistics": lambda folder, columns: rlds_statistics(
        folder / "dataset_statistics.json", {"arm": columns}
    ),
    "LeRobot checkpoint": lambda folder, columns: lerobot_checkpoint(folder, columns),
}


def recorded(seed: int = 500) -> list[EpisodeData]:
    """Return demonstrations of an arm with six joints, the last of them a gripper."""
    tasks = (DemoTask("pick", 6, 2.0), DemoTask("place", 6, 3.0))
    spec = DatasetSpec("v2.1", "arm", "joint", 10)
    episodes = demo_episodes(DemoDataset("demo/arm", ARM6, tasks, spec, seed))
    # Open more often than not, as in practice: an even gripper looks the same inverted.
    for episode in episodes:
        for values in (episode.state, episode.actions):
            values[:, GRIPPER] = values[:, GRIPPER] ** 6
    return episodes


def columns_of(episodes) -> dict[str, np.ndarray]:
    return {
        "state": np.concatenate([e.state for e in episodes]),
        "actions": np.concatenate([e.actions for e in episodes]),
    }


def changed(episodes, change) -> list[EpisodeData]:
    return [
        EpisodeData(
            change(e.state.astype(np.float64)).astype(np.float32),
            change(e.actions.astype(np.float64)).astype(np.float32),
            e.task_index,
        )
        for e in episodes
    ]


def written(folder, episodes, name="arm"):
    """Write a dataset of those frames, with the stats that they have."""
    names = {"state_names": ARM6.names, "action_names": ARM6.names}
    root = tiny_dataset(folder, "v3.0", name=name, episodes=episodes, **names)
    return lerobot_stats(root / "meta/stats.json", columns_of(episodes)) and root


def forecast(root, stats=None, **options):
    resolved = resolve_mixture(mixture_from_roots([str(root)]))
    return make_forecast(resolved, RunContext(workers=1), ForecastOptions(stats, **options))


def in_degrees(values):
    out = values.copy()
    out[:, :GRIPPER] *= 180 / np.pi
    return out


def shifted(values):
    out = values.copy()
    out[:, 1] += 1.5
    return out


def negated(values):
    out = values.copy()
    out[:, 2] *= -1
    return out


def swapped(values):
    return values[:, [0, 2, 1, 3, 4, 5]]


def inverted(values):
    out = values.copy()
    out[:, GRIPPER] = 1 - out[:, GRIPPER]
    return out


def zeroed(values):
    out = values.copy()
    out[:, 3] = 0
    return out


FAULTS = {
    "degrees": (in_degrees, {"P005"}, (0, 1, 2, 3, 4)),
    "offset": (shifted, {"P006"}, (1,)),
    "flipped_sign": (negated, {"P007"}, (2,)),
    "dim_order": (swapped, {"P008"}, (1, 2)),
    "inverted": (inverted, {"P009"}, (GRIPPER,)),
    "padding": (zeroed, {"P010"}, (3,)),
}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("origin", WRITERS)
def test_right_stats_of_any_origin_give_no_finding(tmp_path, origin, deep):
    root = written(tmp_path, recorded())
    stats = WRITERS[origin](tmp_path / "stats", columns_of(recorded()))
    made = forecast(root, stats, deep=deep)
    assert made.kind == origin
    assert [f.message for f in made.findings] == []
    assert made.verdict == "reuse"


@pytest.mark.parametrize("origin", WRITERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_named_with_its_dims(tmp_path, fault, origin):
    change, codes, dims = FAULTS[fault]
    root = written(tmp_path, changed(recorded(), change))
    stats = WRITERS[origin](tmp_path / "stats", columns_of(recorded()))
    made = forecast(root, stats)
    assert {f.code for f in made.findings} == codes
    assert {(f.kind, f.feature, f.dims) for f in made.findings} == {
        (fault, feature, dims) for feature in ("state", "actions")
    }
    assert made.verdict == "recompute"


@pytest.mark.parametrize("seed", [501, 502, 503])
def test_stats_of_another_task_of_the_same_robot_are_no_mismatch(tmp_path, seed):
    root = written(tmp_path, recorded())
    stats = lerobot_stats(tmp_path / "stats.json", columns_of(recorded(seed)))
    codes = {f.code for f in forecast(root, stats).findings}
    assert codes <= {"P003", "P004"}
    radians = lerobot_stats(tmp_path / "radians.json", columns_of(recorded(seed)))
    degrees = written(tmp_path, changed(recorded(), in_degrees), name="degrees")
    assert {"degrees"} == {f.kind for f in forecast(degrees, radians).findings if f.code == "P005"}


def test_stats_of_a_wider_or_narrower_robot_are_of_the_wrong_one(tmp_path):
    root = written(tmp_path, recorded())
    whole = columns_of(recorded())
    wide = {k: np.concatenate([v, v[:, :1] + 0.5], axis=1) for k, v in whole.items()}
    narrow = {k: v[:, :4] for k, v in whole.items()}
    for columns in (wide, narrow):
        made = forecast(root, lerobot_stats(tmp_path / "stats.json", columns))
        assert made.verdict == "wrong robot"
        assert {f.code for f in made.findings} == {"P001"}


def test_stats_of_another_robot_altogether_are_said_to_be(tmp_path):
    root = written(tmp_path, recorded())
    rng = np.random.Generator(np.random.PCG64(7))
    other = {k: 40 + 30 * rng.random(v.shape) * 9 for k, v in columns_of(recorded()).items()}
    made = forecast(root, lerobot_stats(tmp_path / "stats.json", other))
    assert made.verdict == "wrong robot"


def test_deep_shares_and_places_are_those_of_the_frames(tmp_path):
    episodes = recorded()
    root = written(tmp_path, episodes)
    half = {k: v * 0.4 for k, v in columns_of(episodes).items()}
    made = forecast(
        root, lerobot_stats(tmp_path / "s.json", half), normalization="mean_std", deep=True
    )
    stats = stats_of(half["state"])
    values = columns_of(episodes)["state"].astype(np.float64)
    normalized = (values - stats["mean"]) / (np.array(stats["std"]) + 1e-8)
    (mode,) = [m for m in made.members[0].modes if m.feature == "state"]
    at = np.concatenate([[(i, t) for t in range(len(e.state))] for i, e in enumerate(episodes)])
    for dim in mode.dims:
        column = np.abs(normalized[:, dim.dim])
        assert dim.beyond == tuple((column > bound * 1.001).mean() for bound in (1, 2, 5))
        assert abs(dim.largest) == pytest.approx(column.max())
        assert (dim.episode, dim.frame) == tuple(at[column.argmax()])


def test_sketch_shares_are_near_those_of_the_frames(tmp_path):
    episodes = recorded()
    root = written(tmp_path, episodes)
    assert CliRunner().invoke(app, ["stats", str(root), "--force"]).exit_code == 0
    half = {k: v * 0.7 + 0.2 for k, v in columns_of(episodes).items()}
    stats = lerobot_stats(tmp_path / "s.json", half)
    for mode in ("min_max", "quantile", "mean_std"):
        near = forecast(root, stats, normalization=mode)
        exact = forecast(root, stats, normalization=mode, deep=True)
        assert {m.origin for m in near.members[0].modes} == {"sketch"}
        for a, b in zip(near.members[0].modes, exact.members[0].modes, strict=True):
            for one, other in zip(a.dims, b.dims, strict=True):
                assert one.beyond == pytest.approx(other.beyond, abs=0.01)
                assert one.largest == pytest.approx(other.largest)


@pytest.mark.parametrize(
    "name",
    [pytest.param("g1_pick_bottle", marks=pytest.mark.slow), "so101_record_test"],
)
def test_published_datasets_raise_no_alarm_with_their_own_right_stats(tmp_path, name):
    root = copy_real(name, tmp_path)
    from opentau_prep.frames import read_frames
    from opentau_prep.metadata import load_dataset_metadata

    block = read_frames(load_dataset_metadata(root), ["observation.state", "action"])
    columns = {"state": block.columns["observation.state"], "actions": block.columns["action"]}
    for origin, write in WRITERS.items():
        deep = origin == "LeRobot stats"
        made = forecast(root, write(tmp_path / origin, columns), deep=deep)
        assert [f.message for f in made.findings] == [], origin


def test_checkpoint_declares_its_mode_and_its_inconsistencies(tmp_path):
    root = written(tmp_path, recorded())
    folder = lerobot_checkpoint(
        tmp_path / "run/pretrained_model", columns_of(recorded()), mode="QUANTILES"
    )
    (folder / "config.json").write_text(
        json.dumps({"input_features": {"observation.state": {"type": "STATE", "shape": [8]}}})
    )
    made = forecast(root, tmp_path / "run")
    assert {m.mode for m in made.members[0].modes} == {"quantile"}
    (found,) = made.findings
    # huggingface/lerobot issue 4517.
    assert "declares 8 dims of state, its own stats have 6" in found.message


def test_old_checkpoints_and_those_of_opentau_keep_stats_in_their_weights(tmp_path):
    root = written(tmp_path, recorded())
    stats = {k: stats_of(v) for k, v in columns_of(recorded()).items()}
    names = {"state": "normalize_inputs.buffer_{}", "actions": "normalize_targets.buffer_{}"}
    own = {"state": "observation_state", "actions": "action"}
    old = {
        f"{names[k].format(own[k])}.{s}": np.float32(stats[k][s])
        for k in stats
        for s in ("mean", "std")
    }
    safetensors(tmp_path / "old/model.safetensors", {**old, "w": np.zeros((3, 3), np.float32)})
    assert forecast(root, tmp_path / "old").findings == []
    rows = {
        f"{names[k].format(k)}.{s}": np.float32([np.zeros(32), [*stats[k][s], *[0.0] * 26]])
        for k in stats
        for s in ("min", "max")
    }
    safetensors(tmp_path / "tau/model.safetensors", rows)
    (tmp_path / "tau/config.json").write_text(
        json.dumps(
            {"dataset_names": ["other", "arm"], "normalization_mapping": {"STATE": "MIN_MAX"}}
        )
    )
    source = load_stats_source(tmp_path / "tau")
    assert (source.kind, [s.name for s in source.sets]) == ("OpenTau checkpoint", ["other", "arm"])
    assert forecast(root, tmp_path / "tau").findings == []
    wrong = forecast(root, tmp_path / "tau", stats_key="other")
    assert wrong.verdict != "reuse"


def test_bfloat16_tensors_are_read(tmp_path):
    values = np.array([1.5, -2.0, 0.0078125], np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    safetensors(tmp_path / "model.safetensors", {"normalize_inputs.buffer_state.mean": upper})
    (only,) = load_stats_source(tmp_path / "model.safetensors").sets
    assert only.features["state"]["mean"].tolist() == values.tolist()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 4,
        b"\xff" * 64,
        (20).to_bytes(8, "little") + b"{}",
        b"not safetensors at all!",
    ],
)
def test_damaged_safetensors_are_refused(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(MetadataError, match="safetensors"):
        load_stats_source(tmp_path)


def test_several_stats_need_a_name_and_take_the_datasets(tmp_path):
    root = written(tmp_path, recorded())
    columns = columns_of(recorded())
    wrong = {k: v * 9 + 40 for k, v in columns.items()}
    named = rlds_statistics(tmp_path / "a/dataset_statistics.json", {"x": wrong, "arm": columns})
    assert forecast(root, named).members[0].stats == "arm"
    other = rlds_statistics(tmp_path / "b/dataset_statistics.json", {"x": wrong, "y": columns})
    with pytest.raises(ConfigError, match="--stats-key"):
        forecast(root, other)
    assert forecast(root, other, stats_key="y").verdict == "reuse"
    with pytest.raises(ConfigError, match="no stats called 'z'"):
        forecast(root, other, stats_key="z")


def test_command_writes_the_artifact_and_says_by_its_code_what_it_found(tmp_path):
    root = written(tmp_path, changed(recorded(), in_degrees))
    stats = lerobot_stats(tmp_path / "stats.json", columns_of(recorded()))
    mixture = tmp_path / "mix.json"
    mixture.write_text(json.dumps({"datasets": [{"repo_id": "me/arm", "root": str(root)}]}))
    words = ["forecast", "--mixture-json", str(mixture), "--json"]
    result = CliRunner().invoke(app, [*words, "--stats", str(stats)])
    assert result.exit_code == 1, result.output
    document = json.loads(result.stdout)
    artifact = tmp_path / "mix.prep/forecast.json"
    assert document["out"] == {"path": str(artifact), "status": "written"}
    assert json.loads(artifact.read_text())["datasets"] == document["datasets"]
    before = artifact.read_bytes()
    again = CliRunner().invoke(app, [*words, "--stats", str(stats)])
    assert json.loads(again.stdout)["out"]["status"] == "up to date"
    assert artifact.read_bytes() == before
    # `validate` repeats what was found.
    checked = CliRunner().invoke(app, ["validate", *words[1:], "--select", "P"])
    assert {f["code"] for f in json.loads(checked.stdout)["findings"]} == {"P005"}
    assert CliRunner().invoke(app, words).exit_code == 0
    checked = CliRunner().invoke(app, ["validate", *words[1:], "--select", "P"])
    assert json.loads(checked.stdout)["findings"] == []
