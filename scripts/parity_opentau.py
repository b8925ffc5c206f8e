"""Compare this package with OpenTau, bit for bit, on mixtures made up at random.

    python scripts/parity_opentau.py PATH_TO_OPENTAU [--mixtures 500] [--seed 0] [--golden FILE]

Needs an environment in which OpenTau can be imported. Every mixture is written to disk (without
frames, unless its actions are relative to the state) and goes through OpenTau's own `make_dataset`
and `WeightedDatasetMixture`, with a dataset class that has no frames in the place of its loader;
the same files go through `load_mixture` and `mixture_norm_heads`. Around each mixture, stats
aggregation, standardized stats, stats of delta actions, speed percentiles, normalization and chunk
rows are compared on arguments of their own. Arrays must have the same dtype, shape and bits (any
NaN equals any NaN); what one side refuses, the other must.

Exits with 1 when anything differs. `docs/parity.md` keeps the latest result.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import opentau_prep
from opentau_prep.demo.spec import ABSENT, DatasetSpec, EpisodeData
from opentau_prep.demo.write import write_dataset
from opentau_prep.frames.chunks import gather_chunks
from opentau_prep.metadata.split import train_val_split
from opentau_prep.notices import collect_notices

Rng = np.random.Generator
FOUR = ("min", "max", "mean", "std")
QUANTILES = ("q01", "q10", "q50", "q90", "q99")
TAGS = ("arm", "Arm ", "unknown", " UNKNOWN", "", None, "bi::manual", "arm")
MODES = ("joint", "ee", "Unknown", None, "joint", "joint")
CAMERAS = ("observation.images.top", "observation.images.wrist")
STATE, ACTION = "observation.state", "action"
CHUNK_SIZE = 4
DELTA_DEFAULTS = {
    "action_freq": None, "vector_resample_strategy": "nearest", "delta_stats_max_rows": None
}  # fmt: skip


class Tally:
    """Counts of comparisons and of differences, by family."""

    def __init__(self) -> None:
        self.compared: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.differing: list[str] = []

    def same(self, family: str, ours: Any, theirs: Any, where: str) -> None:
        """Compare two results at any depth."""
        for path, a, b in _leaves(ours, theirs, where):
            self.compared[family] += 1
            if not _identical(a, b):
                self.differing.append(f"{family}: {path}: ours {_short(a)}, theirs {_short(b)}")

    def outcome(
        self, family: str, ours: Callable[[], Any], theirs: Callable[[], Any], where: str
    ) -> None:
        """Compare what two calls return; when one refuses, so must the other."""
        (a, fault_a), (b, fault_b) = _outcome(ours), _outcome(theirs)
        if fault_a is None and fault_b is None:
            self.same(family, a, b, where)
        elif fault_a is not None and fault_b is not None:
            self.refused[family] += 1
        else:
            self.differing.append(f"{family}: {where}: ours {fault_a!r}, theirs {fault_b!r}")


def _outcome(call: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return call(), None
    except Exception as error:  # noqa: BLE001 - any refusal is an outcome
        return None, error


def _leaves(a: Any, b: Any, path: str) -> list[tuple[str, Any, Any]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if set(a) != set(b):
            return [(path, sorted(map(str, a)), sorted(map(str, b)))]
        return [leaf for key in a for leaf in _leaves(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [leaf for i, (x, y) in pairs for leaf in _leaves(x, y, f"{path}[{i}]")]
    return [(path, a, b)]


def _identical(a: Any, b: Any) -> bool:
    if isinstance(a, (np.ndarray, np.generic)) or isinstance(b, (np.ndarray, np.generic)):
        x, y = np.asarray(a), np.asarray(b)
        if x.dtype != y.dtype or x.shape != y.shape:
            return False
        if x.dtype.kind == "f":
            nan = np.isnan(x)
            if not np.array_equal(nan, np.isnan(y)):
                return False
            x, y = np.where(nan, 0, x).astype(x.dtype), np.where(nan, 0, y).astype(y.dtype)
        return x.tobytes() == y.tobytes()
    return bool(a == b) or (a != a and b != b)


def _short(value: Any) -> str:
    array = np.asarray(value)
    text = np.array2string(array.reshape(-1)[:4], precision=17)
    return f"{array.dtype}{list(array.shape)} {text}"


# ------------------------------------------------------------------------------ mixtures on disk


def _pick(rng: Rng, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def _write_dataset(
    rng: Rng, root: Path, robot: Any, mode: Any, dims: tuple[int, int] | None, *, data: bool
) -> DatasetSpec:
    dims = dims or (int(rng.integers(1, 8)), int(rng.integers(1, 7)))
    spec = DatasetSpec(
        version=_pick(rng, ("v2.0", "v2.1", "v2.1", "v3.0", "v3.0")),
        robot_type=ABSENT if robot is None and rng.random() < 0.5 else robot,
        control_mode=ABSENT if mode is None else mode,
        fps=int(_pick(rng, (10, 30, 50))),
        cameras=CAMERAS[: int(rng.integers(3))],
        quantiles=bool(rng.random() < 0.7),
        rows_per_meta_file=_pick(rng, (None, 2)),
        episodes_per_file=_pick(rng, (None, 2)),
        list_type=_pick(rng, ("list", "fixed_size_list")),
        float_dtype=_pick(rng, ("float32", "float32", "float64")),
    )
    scale, shift = 10.0 ** rng.integers(-3, 4), rng.normal()
    episodes = []
    for _ in range(int(rng.integers(1, 7))):
        n = int(rng.integers(2, 40))
        values = [(rng.normal(size=(n, d)) * scale + shift).astype(np.float32) for d in dims]
        if data and rng.random() < 0.05:
            spoiled = values[int(rng.integers(2))]
            spoiled[int(rng.integers(n)), 0] = _pick(rng, (np.nan, np.inf, -np.inf))
        episodes.append(EpisodeData(values[0], values[1]))
    write_dataset(root, spec, episodes, data=data)
    _spoil(rng, root)
    return spec


def _spoil(rng: Rng, root: Path) -> None:
    """Write into the JSON files what is found in published ones."""
    info = json.loads((root / "meta/info.json").read_text())
    if rng.random() < 0.15:
        info["total_frames"] = _pick(rng, (0, None))
    (root / "meta/info.json").write_text(json.dumps(info))
    if rng.random() < 0.5:
        return
    for name in ("episodes_stats.jsonl", "stats.json"):
        path = root / "meta" / name
        if not path.exists():
            continue
        text = path.read_text()
        rows = [json.loads(t) for t in (text.splitlines() if name.endswith("l") else [text])]
        row = _pick(rng, rows)
        stats = row.get("stats", row)
        entry = stats[_pick(rng, [f for f in (STATE, ACTION) if f in stats])]
        damage = rng.random()
        if damage < 0.6:
            stat = _pick(rng, [s for s in entry if s != "count"])
            entry[stat][int(rng.integers(len(entry[stat])))] = _pick(
                rng, (float("nan"), float("inf"), float("-inf"))
            )
        elif damage < 0.8:
            for quantile in QUANTILES[int(rng.integers(5)) :]:
                entry.pop(quantile, None)
        else:
            for camera in CAMERAS[int(rng.integers(2)) :]:
                for each in rows:
                    each.get("stats", each).pop(camera, None)
        path.write_text("\n".join(json.dumps(each) for each in rows) + "\n")


def make_mixture(rng: Rng, folder: Path) -> dict[str, Any]:
    """Write a mixture's datasets and its JSON, and return the JSON's content."""
    entries: list[dict[str, Any]] = []
    robots, modes = _pick(rng, (("arm",), ("arm",), TAGS)), _pick(rng, (("joint",), MODES))
    all_delta = rng.random() < 0.25
    # Datasets of one head need one width, and mixtures that both sides refuse prove little.
    dims = (int(rng.integers(1, 8)), int(rng.integers(1, 7))) if rng.random() < 0.9 else None
    for i in range(int(rng.integers(1, 6))):
        if rng.random() < 0.15:
            entries.append({"vqa": "dummy", "num_samples": 1000})
            continue
        name = _pick(rng, ("lab/a", f"lab/d{i}", f"lab/dummy_{i}", f"d{i}"))
        spec = _write_dataset(rng, folder / f"d{i}", _pick(rng, robots), _pick(rng, modes), dims,
                              data=all_delta)  # fmt: skip
        entries.append(_entry(rng, f"d{i}", name, spec, folder, delta=all_delta))
        if rng.random() < 0.2:
            entries.append(_entry(rng, f"d{i}", name, spec, folder, delta=all_delta))
    mixture: dict[str, Any] = {
        "datasets": entries,
        "val_split_ratio": float(_pick(rng, (0.0, 0.05, 0.3, 1 / 3))),
        "require_non_empty_robot_type": bool(rng.random() < 0.05),
        "require_non_empty_control_mode": bool(rng.random() < 0.05),
    }
    if all_delta:
        mixture["action_freq"] = _pick(rng, (None, 10.0, 15.0, 30.0, 7.5))
        mixture["vector_resample_strategy"] = _pick(rng, ("nearest", "linear"))
        mixture["delta_stats_max_rows"] = _pick(rng, (None, None, 7, 30))
    if rng.random() < 0.5:
        mixture["weights"] = [float(x) for x in rng.integers(1, 5, size=len(entries))]
    (folder / "mixture.json").write_text(json.dumps(mixture))
    return mixture


def _entry(
    rng: Rng, folder: str, repo_id: str, spec: DatasetSpec, parent: Path, *, delta: bool
) -> dict[str, Any]:
    cameras = {f"camera{i}": column for i, column in enumerate(spec.cameras)}
    entry: dict[str, Any] = {
        "repo_id": repo_id,
        "root": folder,
        "data_features_name_mapping": {
            "state": STATE, "actions": ACTION, "prompt": "task", "response": "response", **cameras
        },
    }  # fmt: skip
    info = json.loads((parent / folder / "meta/info.json").read_text())
    widths = [info["features"][column]["shape"][0] for column in (STATE, ACTION)]
    n = info["total_episodes"]
    if rng.random() < 0.35:
        entry["episodes"] = sorted(
            map(int, rng.choice(n, size=rng.integers(1, n + 1), replace=False))
        )
    if rng.random() < 0.25:
        entry["excluded_episodes"] = [int(rng.integers(n + 1))]
    for field, width in zip(("state_index", "action_index"), widths, strict=True):
        if rng.random() < 0.25:
            least = 1 if rng.random() < 0.1 else width
            chosen = rng.permutation(width + int(rng.random() < 0.03))
            entry[field] = [int(c) for c in chosen[: rng.integers(least, width + 1)]]
    if rng.random() < 0.2:
        entry["robot_type"] = _pick(rng, ("arm", "", "leg"))
    if rng.random() < 0.2:
        entry["control_mode"] = _pick(rng, ("joint", "unknown"))
    if rng.random() < 0.5:
        entry["use_imagenet_stats"] = bool(rng.random() < 0.7)
    if rng.random() < 0.3:
        entry["val_split_ratio"] = float(_pick(rng, (0.0, 0.2, 0.5)))
    if delta and rng.random() < 0.95:
        state, action = entry.get("state_index", [0]), entry.get("action_index", [0])
        entry["use_delta_joint_actions"] = True
        entry["delta_action_state_map"] = {str(action[0]): state[-int(rng.random() < 0.05)]}
    return entry


# ---------------------------------------------------------------------------------- the two sides


class Trainer:
    """OpenTau's own functions, around a dataset class that needs no frames."""

    def __init__(self, path: Path) -> None:
        sys.path.insert(0, str(path / "src"))
        _import_plain_jsonlines()
        from opentau.configs.default import DatasetConfig
        from opentau.datasets import factory, lerobot_dataset

        self.factory, self.config = factory, DatasetConfig
        factory.LeRobotDataset = _light_dataset(lerobot_dataset)

    def mixture(self, content: dict[str, Any], folder: Path, widths: Any, seed: int | None) -> Any:
        """Return (heads, held-out rows by entry) of a mixture."""
        allowed = set(self.config.__dataclass_fields__)
        configs = []
        for entry in content["datasets"]:
            fields = {k: v for k, v in entry.items() if k in allowed}
            if "root" in fields:
                fields["root"] = str(folder / fields["root"])
            configs.append(self.config(**fields))
        given = {k: v for k, v in content.items() if k != "datasets"}
        cfg = _train_config(configs, given, widths, seed)
        _, val = self.factory.make_dataset_mixture(cfg)
        if any(config.use_delta_joint_actions for config in configs):
            # The first run goes on with what it computed; all others read the float32 of its file.
            _, val = self.factory.make_dataset_mixture(cfg)
        held_out = [sorted(map(int, tagged._base.indices)) for tagged in val.datasets]
        meta = val.meta
        heads = {
            "norm_keys": meta.norm_keys,
            "dataset_to_norm_index": meta.dataset_to_norm_index,
            "norm_key_to_dataset_names": meta.norm_key_to_dataset_names,
            "stats": meta.per_norm_key_stats,
            "delta_map": meta.delta_action_state_map,
        }
        return heads, held_out


def _import_plain_jsonlines() -> None:
    """Import jsonlines as it is without orjson: that one refuses the NaN of `episodes_stats.jsonl`.

    OpenTau reads such files or not, depending on which packages are installed beside it.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == "jsonlines"]:
        del sys.modules[name]
    orjson = sys.modules.get("orjson")
    sys.modules["orjson"] = None  # type: ignore[assignment]
    import jsonlines  # noqa: F401

    if orjson is not None:
        sys.modules["orjson"] = orjson


def _light_dataset(module: Any) -> type:
    class LightDataset(module.BaseDataset):  # type: ignore[misc, name-defined]
        """OpenTau's dataset without frames: metadata, selection and length."""

        def __init__(
            self, cfg: Any, repo_id: str, *, root: Any, revision: Any, **given: Any
        ) -> None:
            super().__init__(cfg)
            self.meta = module.LeRobotDatasetMetadata(repo_id, root=root, revision=revision)
            episodes, excluded = given["episodes"], given["excluded_episodes"]
            selected = module.resolve_selected_episodes(
                self.meta.episodes, episodes, excluded, repo_id
            )
            self.meta.stats = module.aggregate_selected_stats(self.meta, episodes, excluded)
            chosen = list(self.meta.episodes) if selected is None else selected
            self.n = sum(self.meta.episodes[e]["length"] for e in chosen)
            self.episodes, self.fps = selected, self.meta.fps
            self.vector_resample_strategy = given["vector_resample_strategy"]
            self.delta_timestamps_params = module.LeRobotDataset.compute_delta_params(
                *(given[f"delta_timestamps{name}"] for name in ("", "_std", "_lower", "_upper"))
            )
            self._data_features_name_mapping = given["data_features_name_mapping"]

        def __len__(self) -> int:
            return int(self.n)

        def _get_feature_mapping_key(self) -> str:
            return str(self.meta.repo_id)

    return LightDataset


def _train_config(configs: Any, given: Any, widths: Any, seed: int | None) -> Any:
    drops = ("history_state", "subgoal", "response", "metadata_drop_all", "metadata_drop_each")
    mixture = SimpleNamespace(
        datasets=configs,
        **{"weights": None, **DELTA_DEFAULTS, **given},
        **{f"{name}_prob" if "metadata" in name else f"{name}_drop_prob": 0.0 for name in drops},
        n_obs_history=None,
        subgoal_end_of_segment_prob=0.0,
        emit_fps=False,
        tolerance_s=1e-4,
        skip_timestamp_check=False,
        image_resample_strategy="nearest",
        val_enable_optional_key_dropout=False,
        val_enable_prompt_substitution=False,
    )
    policy = SimpleNamespace(action_delta_indices=list(range(CHUNK_SIZE)), history_interval=1)
    return SimpleNamespace(
        dataset_mixture=mixture,
        policy=policy,
        seed=seed,
        val_freq=1,
        resume=False,
        resolution=(224, 224),
        action_chunk=CHUNK_SIZE,
        num_workers=1,
        checkpoint_path=None,
        **widths,
    )


def our_mixture(folder: Path, widths: Any, seed: int | None) -> Any:
    """Return what `Trainer.mixture` does, by this package."""
    from opentau_prep.context import RunContext
    from opentau_prep.frames.delta import mixture_delta_map
    from opentau_prep.metadata.resolve import resolve_mixture
    from opentau_prep.stats.delta_compute import prepare_delta
    from opentau_prep.stats.options import StatsOptions, StatsRun

    with collect_notices():
        mixture = opentau_prep.load_mixture(folder / "mixture.json")
        resolved = resolve_mixture(mixture)
        context = RunContext(workers=1)
        options = StatsOptions(chunk_size=CHUNK_SIZE)
        prepare_delta(resolved, context, StatsRun.of(context, options, here=False))
        made = opentau_prep.mixture_norm_heads(resolved, **widths)
    robots = {entry.name: entry for entry in resolved.entries}
    held_out = []
    for name, config in zip(mixture.dataset_names, mixture.datasets, strict=True):
        table = robots[name].meta.episodes if name in robots else None
        chosen = robots[name].episodes if table is not None else ()
        n = int(table.length[table.positions(chosen)].sum()) if table else config.num_samples
        own = config.val_split_ratio
        _, rows = train_val_split(n or 0, mixture.val_split_ratio if own is None else own, seed)
        held_out.append(rows.tolist())
    heads = {
        "norm_keys": made.norm_keys,
        "dataset_to_norm_index": made.dataset_to_norm_index,
        "norm_key_to_dataset_names": made.norm_key_to_dataset_names,
        "stats": made.per_norm_key_stats,
        "delta_map": mixture_delta_map((e.name, e.config) for e in resolved.entries),
    }
    return heads, held_out


# ------------------------------------------------------------------------- functions on their own


def _random_stats(rng: Rng, shape: tuple[int, ...], *, quantiles: bool) -> dict[str, Any]:
    dtype = _pick(rng, (np.float32, np.float64))
    names = (*FOUR, *(QUANTILES if quantiles else ()))
    stats: dict[str, Any] = {s: (rng.normal(size=shape) * 10).astype(dtype) for s in names}
    stats["std"] = np.abs(stats["std"])
    for stat in names:
        if rng.random() < 0.1:
            spot = tuple(int(rng.integers(n)) for n in shape)
            stats[stat][spot] = _pick(rng, (np.nan, np.inf, -np.inf))
    stats["count"] = np.array([int(rng.integers(1, 10_000))])
    return stats


def compare_aggregation(rng: Rng, tally: Tally, where: str) -> None:
    """Pool stats of several contributors, with and without weights."""
    from opentau.datasets import compute_stats

    shapes = {f"f{i}": (int(rng.integers(1, 9)),) for i in range(2)} | {"image0": (3, 1, 1)}
    contributors = [
        {
            f: _random_stats(rng, shape, quantiles=rng.random() < 0.8)
            for f, shape in shapes.items()
            if rng.random() < 0.9
        }
        for _ in range(int(rng.integers(1, 8)))
    ]
    weights = [float(w) for w in rng.integers(1, 1000, size=len(contributors))]
    given = _pick(rng, (None, weights))

    def ours() -> Any:
        with collect_notices():
            return opentau_prep.aggregate_stats(contributors, weights=given)

    theirs = lambda: compute_stats.aggregate_stats(contributors, weights=given)  # noqa: E731
    tally.outcome("aggregate_stats", ours, theirs, where)


def compare_standardize(rng: Rng, tally: Tally, where: str) -> None:
    """Standardize stats of (D,) and of (T, D), with delta stats and column selections."""
    from opentau.datasets.dataset_mixture import DatasetMixtureMetadata

    lead = _pick(rng, ((), (), (5,)))
    widths = {"max_state_dim": 8, "max_action_dim": int(rng.integers(4, 9)), "num_cams": 2}
    dims = {"s": int(rng.integers(1, 9)), "a": int(rng.integers(1, 8)), "c": 3}
    stats = {
        c: _random_stats(rng, (3, 1, 1) if c == "c" else (*lead, d), quantiles=rng.random() < 0.5)
        for c, d in dims.items()
    }
    index = {
        f"{f}_index": [int(i) for i in rng.permutation(dims[c])[: rng.integers(1, dims[c] + 1)]]
        for f, c in (("state", "s"), ("action", "a"))
        if rng.random() < 0.4
    }
    if rng.random() < 0.3:
        index["delta_stats"] = {"actions": _random_stats(rng, (3,), quantiles=True)}
    names = {
        "state": "s",
        "actions": "a",
        "prompt": "task",
        _pick(rng, ("camera0", "camera1")): "c",
    }

    def ours() -> Any:
        with collect_notices():
            return opentau_prep.standardize_stats(stats, name_map=names, **widths, **index)

    def theirs() -> Any:
        copied = {c: {s: v.copy() for s, v in entry.items()} for c, entry in stats.items()}
        meta = DatasetMixtureMetadata.__new__(DatasetMixtureMetadata)
        meta.cfg = SimpleNamespace(**widths)
        return meta._to_standard_data_format("d", copied, name_map=names, **index)

    tally.outcome("standardize_stats", ours, theirs, where)


def compare_delta(rng: Rng, tally: Tally, where: str, folder: Path) -> None:
    """Stats of delta actions and of the state; one episode exceeds what training feeds at once."""
    lengths = (int(rng.integers(1, 200)), int(rng.integers(1, 5)), 4200)
    case = _delta_case(rng, lengths)
    compared = _delta_sides(case, _write_delta(case, folder / "delta"))
    tally.outcome("delta stats", *compared, where)


def _delta_case(rng: Rng, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Return a dataset with such episodes and what its delta actions are, JSON-ready."""
    dims = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
    scale = 10.0 ** int(rng.integers(-3, 4))
    draw = lambda n, d: (rng.normal(size=(n, d)) * scale).astype(np.float32).tolist()  # noqa: E731
    return {
        "version": _pick(rng, ("v2.1", "v3.0")),
        "episodes_per_file": _pick(rng, (None, 2)),
        "frames": [[draw(n, d) for d in dims] for n in lengths],
        "chunk_size": int(rng.integers(1, 5)),
        "delta_map": {"0": dims[0] - 1},
        "state_index": _pick(rng, (None, [int(i) for i in rng.permutation(dims[0])])),
        "action_index": _pick(rng, (None, [int(i) for i in rng.permutation(dims[1])])),
        "episodes": _pick(rng, (None, [0, len(lengths) - 1])),
        "action_freq": _pick(rng, (None, 10.0, 45.0)),
        "strategy": _pick(rng, ("nearest", "linear")),
        "max_rows": _pick(rng, (None, sum(lengths) // 4)),
    }


def _write_delta(case: dict[str, Any], root: Path) -> Path:
    spec = DatasetSpec(version=case["version"], fps=30, episodes_per_file=case["episodes_per_file"])
    arrays = [[np.array(v, dtype=np.float32) for v in episode] for episode in case["frames"]]
    write_dataset(root, spec, [EpisodeData(*episode) for episode in arrays])
    return root


def _delta_sides(case: dict[str, Any], root: Path) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return what computes a case's stats, by this package and by OpenTau."""
    from opentau.datasets import delta_action_stats as delta

    from opentau_prep.config.load import mixture_from_roots
    from opentau_prep.frames.delta import resolve_delta_map
    from opentau_prep.metadata.resolve import resolve_mixture
    from opentau_prep.stats.delta import DeltaRecipe
    from opentau_prep.stats.delta_compute import compute_delta_stats

    (whole,) = resolve_mixture(mixture_from_roots([root])).entries
    chosen = case["episodes"] or list(range(len(case["frames"])))
    entry: Any = SimpleNamespace(meta=whole.meta, episodes=np.array(chosen, dtype=np.int64))
    index = {name: case[name] for name in ("state_index", "action_index")}
    delta_map = {int(a): s for a, s in case["delta_map"].items()}
    recipe = DeltaRecipe(
        ACTION, STATE, delta_map, *(v and tuple(v) for v in index.values()), tuple(chosen), 30.0,
        case["action_freq"], case["strategy"], case["max_rows"],
    )  # fmt: skip
    paths = [entry.meta.data_paths[e] for e in chosen]
    offsets = np.array([k / (case["action_freq"] or 30) for k in range(case["chunk_size"])]) * 30

    def theirs() -> Any:
        found = delta.compute_delta_action_stats(
            parquet_paths=[str(root / path) for path in dict.fromkeys(paths)],
            state_col=STATE,
            action_col=ACTION,
            delta_map=resolve_delta_map(delta_map, where="", **index),
            chunk_offsets=offsets,
            strategy=case["strategy"],
            episodes=set(chosen),
            max_rows=case["max_rows"],
            **index,
        )
        return delta._deserialize(delta._serialize(found))

    return lambda: compute_delta_stats(entry, recipe, chunk_size=case["chunk_size"]).stats, theirs


def compare_names_and_keys(rng: Rng, tally: Tally, where: str) -> None:
    """Name datasets, and find their norm keys."""
    from opentau.datasets.dataset_mixture import WeightedDatasetMixture, compute_norm_key

    robot, mode = _pick(rng, TAGS), _pick(rng, MODES)
    ours = opentau_prep.compute_norm_key(robot, mode, "d")
    tally.same("norm keys", list(ours), list(compute_norm_key(robot, mode, "d")), where)
    ids = [_pick(rng, ("a", "b", "c")) for _ in range(5)]
    configs = [SimpleNamespace(repo_id=name, vqa=None) for name in ids]
    cfg = SimpleNamespace(dataset_mixture=SimpleNamespace(datasets=configs))
    theirs = WeightedDatasetMixture._make_dataset_names(cfg, configs)
    tally.same("dataset names", opentau_prep.make_dataset_names(ids), theirs, where)


def compare_speed(rng: Rng, tally: Tally, where: str, folder: Path) -> None:
    """Speed percentiles: the values, the buckets, and the file."""
    from opentau.datasets import speed_percentiles as speed

    lengths = {e: int(rng.integers(5, 60)) for e in range(int(rng.integers(1, 60)))}
    tasks = {e: int(rng.integers(3)) for e in lengths if rng.random() < 0.95}
    names = {f"task {i}": i for i in range(3)}
    results, files = [], []
    for side, call in (
        ("ours", opentau_prep.load_or_compute_speed_percentiles),
        ("theirs", speed.load_or_compute_speed_percentiles),
    ):
        (folder / side / "meta").mkdir(parents=True)
        with collect_notices():
            results.append(call(folder / side, lengths, tasks, names))
        files.append((folder / side / "meta/speed_percentiles.jsonl").read_text())
    tally.same("speed percentiles", results[0], results[1], where)
    tally.same("speed percentiles", files[0], files[1], f"{where}/file")
    for task, percentiles in results[0].items():
        for length in (4, 20, 33, 61):
            ours = opentau_prep.bucket_episode_length(length, percentiles)
            theirs = speed.bucket_episode_length(length, percentiles)
            tally.same("speed percentiles", ours, theirs, f"{where}/bucket {task}")


def compare_normalization(rng: Rng, tally: Tally, where: str) -> None:
    """Normalize and unnormalize a batch, in every mode and config version."""
    import torch
    from opentau.configs.types import FeatureType, NormalizationMode, PolicyFeature
    from opentau.policies.normalize import Normalize, Unnormalize

    width, rows = int(rng.integers(1, 9)), int(rng.integers(1, 4))
    stats = []
    for _ in range(rows):
        low = rng.normal(size=width) * 10
        spread = np.abs(rng.normal(size=width)) * _pick(rng, (1.0, 1e-7, 0.0, 100.0))
        stats.append({"x": {"min": low, "max": low + spread, "q01": low, "q99": low + spread,
                            "mean": low, "std": spread}})  # fmt: skip
    values = (rng.normal(size=(6, 3, width)) * 10).astype(np.float32)
    index = rng.integers(rows, size=6)
    for mode in NormalizationMode:
        if mode.value not in ("MIN_MAX", "QUANTILE", "MEAN_STD"):
            continue
        for version, epsilon in ((0, 1e-8), (1, 1e-6)):
            from opentau_prep.normalization import Convention

            convention = Convention.of(mode.value, version)
            picked = [
                np.stack([s["x"][name] for s in stats])[index][:, None]
                for name in convention.stat_names
            ]
            for module, ours in (
                (Normalize, convention.normalize),
                (Unnormalize, convention.unnormalize),
            ):
                theirs = module(
                    {"x": PolicyFeature(type=FeatureType.STATE, shape=(width,))},
                    {FeatureType.STATE: mode},
                    stats,
                    zero_range_center=version > 0,
                    eps=epsilon,
                )
                batch = {"x": torch.from_numpy(values)}
                found = theirs(batch, torch.from_numpy(index))["x"].numpy()
                label = f"{where}/{mode.value} {version} {module.__name__}"
                tally.same("normalization", ours(values, *picked), found, label)


def compare_chunks(rng: Rng, tally: Tally, where: str) -> None:
    """The rows of action chunks, and the values there."""
    import torch
    from opentau.datasets.lerobot_dataset import LeRobotDataset

    fps = int(_pick(rng, (10, 15, 30, 50)))
    freq = _pick(rng, (None, 10.0, 15.0, 30.0, 7.5, 50.0))
    lengths = rng.integers(1, 40, size=4)
    ends = np.cumsum(lengths)
    episode, size = int(rng.integers(4)), int(rng.integers(1, 20))
    first, end = int(ends[episode] - lengths[episode]), int(ends[episode])
    start = int(rng.integers(first, end))
    offsets = np.array([k / (freq or fps) for k in range(size)])
    zero, wide = np.zeros(size), np.full(size, np.inf)
    dataset = SimpleNamespace(
        episode_data_index={"from": torch.tensor(ends - lengths), "to": torch.tensor(ends)},
        epi2idx={e: e for e in range(4)},
        delta_timestamps_params=({"a": offsets}, {"a": zero}, {"a": -wide}, {"a": wide}),
        fps=fps,
    )
    soft, padding = LeRobotDataset._get_query_indices_soft(dataset, start, episode)
    given = {"chunk_size": size, "fps": fps, "action_freq": freq}
    ours = opentau_prep.chunk_rows([start], first, end, **given)
    tally.same("chunk rows", ours[0], soft["a"], where)
    matrix = rng.normal(size=(int(ends[-1]), 3)).astype(np.float32)
    dataset._query_hf_dataset = lambda rows: {k: torch.tensor(matrix[r]) for k, r in rows.items()}
    for strategy in ("nearest", "linear"):
        dataset.vector_resample_strategy = strategy
        theirs = LeRobotDataset._query_hf_dataset_soft(dataset, soft)["a"].numpy()
        tally.same("chunk values", gather_chunks(matrix, ours, strategy)[0], theirs, where)
    from opentau_prep.frames.chunks import chunk_padding

    mask = chunk_padding([start], end, **given)[0]
    tally.same("chunk rows", mask, padding["a_is_pad"].numpy(), f"{where}/padding")


def compare(path: Path, n_mixtures: int, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Compare everything on `n_mixtures` mixtures; return the result, and golden cases."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    trainer, tally = Trainer(path), Tally()
    golden: list[dict[str, Any]] = []
    entries: Counter[str] = Counter()
    for number in range(n_mixtures):
        rng = np.random.default_rng([seed, number])
        where = f"mixture {number}"
        with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
            folder = Path(name)
            content = make_mixture(rng, folder)
            widths = {"max_state_dim": 8, "max_action_dim": 7, "num_cams": int(rng.integers(4))}
            split = _pick(rng, (None, 0, 7, 123_456))
            tally.outcome(
                "mixtures",
                lambda: our_mixture(folder, widths, split),  # noqa: B023 - called at once
                lambda: trainer.mixture(content, folder, widths, split),  # noqa: B023
                where,
            )
            golden += _golden_case(trainer, content, folder, widths, split, len(golden))
            entries["vqa"] += sum("vqa" in e for e in content["datasets"])
            entries["robot"] += sum("vqa" not in e for e in content["datasets"])
            entries["delta"] += sum("delta_action_state_map" in e for e in content["datasets"])
            compare_speed(rng, tally, where, folder)
            if number % 5 == 0:
                compare_delta(rng, tally, where, folder)
        compare_aggregation(rng, tally, where)
        compare_standardize(rng, tally, where)
        compare_names_and_keys(rng, tally, where)
        compare_normalization(rng, tally, where)
        compare_chunks(rng, tally, where)
    return {
        "mixtures": n_mixtures,
        "entries": dict(entries),
        "compared": dict(tally.compared),
        "both_refuse": dict(tally.refused),
        "differing": tally.differing,
    }, golden


def _golden_case(
    trainer: Trainer, content: Any, folder: Path, widths: Any, seed: int | None, n_cases: int
) -> list[dict[str, Any]]:
    """Return a mixture as a golden case, if it is a small one that few others are like."""
    files = {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.glob("d*/meta/*.json*"))
    }
    entries = content["datasets"]
    wanted = (
        n_cases < N_GOLDEN
        and 2 <= len(entries) <= 4
        and widths["num_cams"] > 0
        and sum(map(len, files.values())) < 30_000
        and not list(folder.glob("d*/meta/*.parquet"))
        and not any(e.get("use_delta_joint_actions") for e in entries)
        and ("vqa" in entries[0] or n_cases >= N_GOLDEN // 2)
    )
    if not wanted:
        return []
    found, refusal = _outcome(lambda: trainer.mixture(content, folder, widths, seed))
    if refusal is not None:
        return []
    heads, held_out = found
    expected = {**heads, "stats": _encoded(heads["stats"]), "held_out": held_out}
    del expected["delta_map"]
    given = {"mixture": content, "files": files, "widths": widths, "seed": seed}
    return [{"name": f"mixture {n_cases}", **given, "expected": expected}]


def _delta_golden() -> list[dict[str, Any]]:
    """Return a few small datasets with OpenTau's stats of their delta actions."""
    cases = []
    for number in range(2 * N_GOLDEN):
        case = _delta_case(np.random.default_rng(number), (1, 14, 9, 11))
        if number % 8 == 7:
            case["frames"][1][number // 8 % 2][3][0] = np.nan
        with tempfile.TemporaryDirectory() as name:
            expected = _delta_sides(case, _write_delta(case, Path(name)))[1]()
        frames = _finite(case["frames"])
        cases.append({"name": f"case {number}", **case, "frames": frames,
                      "expected": _encoded(expected)})  # fmt: skip
    return cases


N_GOLDEN = 8


def _encoded(value: Any) -> Any:
    """Return arrays as the other golden vectors hold them."""
    if isinstance(value, Mapping):
        return {key: _encoded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_encoded(each) for each in value]
    array = np.asarray(value)
    shape = list(array.shape)
    return {"dtype": str(array.dtype), "shape": shape, "data": _finite(array.tolist())}


def _finite(data: Any) -> Any:
    if isinstance(data, list):
        return [_finite(each) for each in data]
    if isinstance(data, float) and not np.isfinite(data):
        return "NaN" if np.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    return data


def _versions(path: Path, commit: str | None) -> dict[str, str]:
    import subprocess

    import tomllib
    import torch

    project = tomllib.loads((path / "pyproject.toml").read_text())["project"]
    git = ["git", "-C", str(path), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    commit = commit or done.stdout.strip() or "commit unknown"
    return {
        "opentau-prep": opentau_prep.__version__,
        "OpenTau": f"{project['version']} ({commit})",
        "NumPy": np.__version__,
        "torch": torch.__version__,
        "Python": sys.version.split()[0],
    }


def main() -> int:
    """Run the comparison and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="A checkout of OpenTau.")
    parser.add_argument("--mixtures", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commit", help="Of a checkout without its git history.")
    parser.add_argument(
        "--golden", type=Path, metavar="FOLDER",
        help="Record OpenTau's results of a few mixtures and stats of delta actions.",
    )  # fmt: skip
    args = parser.parse_args()
    begin = time.monotonic()
    result, golden = compare(args.path.resolve(), args.mixtures, args.seed)
    result = {"versions": _versions(args.path.resolve(), args.commit), "seed": args.seed, **result}
    print(", ".join(f"{name} {version}" for name, version in result["versions"].items()))
    kinds = result["entries"]
    print(f"{args.mixtures} mixtures of {kinds['robot'] + kinds['vqa']} entries, {kinds['vqa']} of"
          f" them vqa and {kinds['delta']} with delta actions,"
          f" {time.monotonic() - begin:.0f} s")  # fmt: skip
    for family, n in result["compared"].items():
        refused = result["both_refuse"].get(family, 0)
        print(f"  {family}: {n} values compared" + (f", {refused} refused by both" * bool(refused)))
    print(f"{len(result['differing'])} differ")
    for line in result["differing"][:20]:
        print(f"  {line}")
    if args.golden is not None:
        for name, cases in (("trainer_heads", golden), ("delta_stats", _delta_golden())):
            content = {"versions": result["versions"], "cases": cases}
            text = json.dumps(content, separators=(",", ":")) + "\n"
            (args.golden / f"{name}.json").write_text(text)
    return int(bool(result["differing"]))


if __name__ == "__main__":
    raise SystemExit(main())
