"""The stats that a checkpoint was trained with: read from its safetensors, with NumPy alone.

| checkpoint | where its stats are |
| --- | --- |
| LeRobot, processors | `policy_preprocessor.json` names the file of its `normalizer_processor` |
| LeRobot, before processors | `model.safetensors`, `normalize_inputs.buffer_observation_state.*` |
| OpenTau | `model.safetensors`, `normalize_inputs.buffer_state.*`: one row per norm head |
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import ConfigError, MetadataError
from opentau_prep.forecast.formulas import Normalization
from opentau_prep.forecast.safetensors import read_safetensors
from opentau_prep.forecast.sets import ALIASES, STATS, StatSet, StatsSource
from opentau_prep.heads.members import VECTOR_FEATURES
from opentau_prep.metadata.info import INFO
from opentau_prep.metadata.jsonread import read_json_object
from opentau_prep.storage import open_storage

__all__ = ["read_checkpoint"]

PREPROCESSOR = "policy_preprocessor.json"
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
_MODES: Mapping[str, Normalization] = {
    "MIN_MAX": "min_max",
    "MEAN_STD": "mean_std",
    "QUANTILE": "quantile",
    "QUANTILES": "quantile",
    "QUANTILE10": "quantile10",
}
_TYPES = {"state": "STATE", "actions": "ACTION"}
# LeRobot's own keys, and those that its migration left in checkpoints of several datasets.
_PLAIN = re.compile(r"(?:(?P<set>.+)\.buffer\.)?(?P<feature>[\w.]+)\.(?P<stat>\w+)")
_BUFFER = re.compile(
    r"normalize_(?:inputs|targets)\.(?:(?P<set>.+)_)?buffer_(?P<feature>\w+)\.(?P<stat>\w+)"
)

_Tensors = dict[str, dict[str, dict[str, NDArray[np.float64]]]]
"""Set -> feature -> stat -> array."""


def read_checkpoint(folder: Path, weights: Path | None = None) -> StatsSource:
    """Return the stats of a checkpoint's folder, or of the folder that lies deepest in its name.

    Args:
        folder: The checkpoint, or a training run's folder with `pretrained_model` in it.
        weights: One safetensors file of it, to read that and no other.

    Raises:
        ConfigError: There are no stats of state and actions in it.
        MetadataError: A file is damaged.
    """
    home = folder if weights is not None else _home(folder)
    config = _config(home)
    if weights is None and (home / PREPROCESSOR).is_file():
        return _of_processors(home, config)
    file = weights or home / WEIGHTS
    tensors = read_safetensors(file, lambda name: _parse(name, _BUFFER) is not None)
    found = _grouped(tensors, _BUFFER)
    if not found and weights is not None:
        found = _grouped(
            read_safetensors(file, lambda name: _parse(name, _PLAIN) is not None), _PLAIN
        )
    if not found:
        raise ConfigError(
            "has no stats of state and actions: neither a normalizer's nor buffers of weights",
            where=str(file),
            hint="openpi keeps them in assets/, OpenVLA in dataset_statistics.json.",
        )
    modes = _declared(config.get("normalization_mapping"))
    if any(v.ndim > 1 for group in found.values() for f in group.values() for v in f.values()):
        sets = _rows(found, config)
        return StatsSource("OpenTau checkpoint", str(file), "opentau", sets, modes)
    sets = [StatSet(name, features) for name, features in found.items()]
    return StatsSource(
        "LeRobot checkpoint", str(file), "lerobot", sets, modes, _widths(config, sets)
    )


def _home(folder: Path) -> Path:
    names = (PREPROCESSOR, WEIGHTS)
    for pattern in ("", "pretrained_model", "checkpoints/last/pretrained_model", "*", "*/*"):
        places = [folder] if not pattern else sorted(folder.glob(pattern))
        for place in places:
            if any((place / name).is_file() for name in names):
                return place
    raise ConfigError(
        f"holds no stats that are known: neither {', '.join((INFO, *names[:-1]))} nor {names[-1]}",
        where=str(folder),
        hint="Name a dataset, a file of stats, or the folder of a policy's config.json.",
    )


def _config(home: Path) -> dict[str, Any]:
    if not (home / CONFIG).is_file():
        return {}
    return read_json_object(open_storage(home), CONFIG)


def _of_processors(home: Path, config: Mapping[str, Any]) -> StatsSource:
    pipeline = read_json_object(open_storage(home), PREPROCESSOR)
    steps = [s for s in pipeline.get("steps") or () if isinstance(s, Mapping)]
    step = next((s for s in steps if _is_normalizer(s)), None)
    if step is None or not isinstance(step.get("state_file"), str):
        raise ConfigError(
            "has no normalizer with stats: this policy takes values as they are",
            where=str(home / PREPROCESSOR),
        )
    name = Path(step["state_file"]).name
    tensors = read_safetensors(home / name, lambda key: _parse(key, _PLAIN) is not None)
    found = _grouped(tensors, _PLAIN)
    sets = [StatSet(group, features) for group, features in found.items()]
    if not sets:
        raise ConfigError("has no stats of state and actions", where=str(home / name))
    settings = step.get("config") if isinstance(step.get("config"), Mapping) else {}
    modes = _declared(cast("Mapping[str, Any]", settings).get("norm_map"))
    faults = {**_widths(config, sets), **_inert(found, modes)}
    return StatsSource("LeRobot checkpoint", str(home / name), "lerobot", sets, modes, faults)


def _is_normalizer(step: Mapping[str, Any]) -> bool:
    return "normalizer" in str(step.get("registry_name", step.get("class", ""))).lower()


def _parse(name: str, pattern: re.Pattern[str]) -> tuple[str, str, str] | None:
    found = pattern.fullmatch(name)
    if found is None or found["feature"] not in ALIASES or found["stat"] not in STATS:
        return None
    return found["set"] or "", ALIASES[found["feature"]], found["stat"]


def _grouped(tensors: Mapping[str, NDArray[np.float64]], pattern: re.Pattern[str]) -> _Tensors:
    found: _Tensors = {}
    for name, values in tensors.items():
        parsed = _parse(name, pattern)
        if parsed is not None:
            group, feature, stat = parsed
            found.setdefault(group, {}).setdefault(feature, {})[stat] = np.atleast_1d(values)
    return found


def _declared(mapping: Any) -> dict[str, Normalization | None]:
    if not isinstance(mapping, Mapping):
        return {}
    return {f: _MODES.get(str(mapping[kind])) for f, kind in _TYPES.items() if kind in mapping}


def _rows(found: _Tensors, config: Mapping[str, Any]) -> list[StatSet]:
    """Return one set per row of the stacked buffers; the config names the rows."""
    features = found.get("") or next(iter(found.values()))
    counts = {len(values) for stats in features.values() for values in stats.values()}
    if len(counts) != 1 or any(v.ndim != 2 for s in features.values() for v in s.values()):
        raise MetadataError("its buffers have different numbers of rows", where=WEIGHTS)
    names = config.get("dataset_names")
    count = counts.pop()
    if not isinstance(names, list) or len(names) != count:
        names = [""] if count == 1 else [f"row {i}" for i in range(count)]
    return [
        StatSet(
            str(name),
            {f: {s: values[row] for s, values in stats.items()} for f, stats in features.items()},
        )
        for row, name in enumerate(names)
    ]


def _widths(config: Mapping[str, Any], sets: Sequence[StatSet]) -> dict[str, str]:
    """Return what the policy's config declares against the width of its own stats."""
    faults = {}
    for feature, group, names in (
        ("state", "input_features", ("observation.state", "state")),
        ("actions", "output_features", ("action", "actions")),
    ):
        declared = config.get(group)
        entries = (
            [declared[n] for n in names if n in declared] if isinstance(declared, Mapping) else []
        )
        shape = entries[0].get("shape") if entries and isinstance(entries[0], Mapping) else None
        stats = sets[0].features.get(feature) or {}
        width = len(next(iter(stats.values()))) if stats else None
        if isinstance(shape, list) and len(shape) == 1 and width not in (None, shape[0]):
            faults[feature] = (
                f"its config.json declares {shape[0]} dims of {feature}, its own stats have {width}"
            )
    return faults


def _inert(found: _Tensors, modes: Mapping[str, Normalization | None]) -> dict[str, str]:
    """Return the features that LeRobot passes through as they are, for want of stats by its name.

    Source: `_apply_transform` of LeRobot 7427f31 returns a tensor unchanged without such stats.
    """
    faults = {}
    for feature in VECTOR_FEATURES:
        if modes.get(feature) is None or feature in found.get("", {}):
            continue
        named = [name for name, features in found.items() if feature in features]
        others = f"; there are some for {', '.join(sorted(named))}" if named else ""
        faults[feature] = (
            f"it declares {modes[feature]} for {feature} and has no stats by that name{others}:"
            " LeRobot passes the values through as they are"
        )
    return faults
