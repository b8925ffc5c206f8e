"""Stats of any origin, read into one form: sets of named stats of state and actions.

| origin | file |
| --- | --- |
| heads of this toolkit | `norm_heads.json` |
| LeRobot dataset | `meta/stats.json`, or the dataset's folder |
| openpi | `norm_stats.json`, or a checkpoint's folder with `assets/**/norm_stats.json` |
| RLDS (OpenVLA, Octo) | `dataset_statistics.json` |
| checkpoint of LeRobot or OpenTau | a folder with safetensors: see `checkpoint` |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import ConfigError, MetadataError
from opentau_prep.forecast.checkpoint import read_checkpoint
from opentau_prep.forecast.formulas import Normalization
from opentau_prep.forecast.sets import ALIASES, STATS, StatSet, StatsSource
from opentau_prep.heads.files import FORMAT, decode_heads
from opentau_prep.heads.members import VECTOR_FEATURES
from opentau_prep.metadata.jsonread import read_json_object
from opentau_prep.storage import open_storage

__all__ = ["feature_stats", "load_stats_source"]

_HINT = (
    "Name a norm_heads.json, stats.json, norm_stats.json, dataset_statistics.json, a LeRobot"
    " dataset, or the folder of a checkpoint."
)


def load_stats_source(path: Path) -> StatsSource:
    """Return the stats of a file or folder, whatever wrote it.

    Raises:
        ConfigError: There is nothing at the path, or nothing in it that is known.
        MetadataError: A file is damaged.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise ConfigError("does not exist", where=str(path), hint=_HINT)
    if path.suffix == ".safetensors":
        return read_checkpoint(path.parent, weights=path)
    return _of_document(path)


def feature_stats(entry: object, where: str) -> dict[str, NDArray[np.float64]]:
    """Return the stats of one feature as (D,) arrays; those with more axes are refused.

    Raises:
        MetadataError: A stat is not a list of numbers, or widths differ.
    """
    if not isinstance(entry, Mapping):
        raise MetadataError("holds no stats", where=where, hint=_HINT)
    found = {}
    for stat in STATS:
        if stat not in entry or entry[stat] is None:
            continue
        try:
            values = np.asarray(entry[stat], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise MetadataError(f"{stat} is not a list of numbers", where=where) from error
        if values.ndim > 1:
            raise MetadataError(
                f"{stat} has shape {values.shape}: stats of each step of a chunk are of relative"
                " actions, which frames alone cannot be compared with",
                where=where,
            )
        found[stat] = np.atleast_1d(values)
    widths = {len(values) for values in found.values()}
    if len(widths) > 1:
        raise MetadataError(f"stats have different widths: {sorted(widths)}", where=where)
    return found


def _of_folder(path: Path) -> StatsSource:
    for name in ("norm_heads.json", "norm_stats.json", "dataset_statistics.json", "stats.json"):
        if (path / name).is_file():
            return _of_document(path / name)
    if (path / "meta/info.json").is_file():
        return _of_dataset(path)
    openpi = sorted(path.glob("assets/**/norm_stats.json"))
    if openpi:
        return _of_openpi(openpi, path / "assets")
    return read_checkpoint(path)


def _of_document(path: Path) -> StatsSource:
    document = read_json_object(open_storage(path.parent), path.name)
    where = str(path)
    if document.get("format") == FORMAT:
        return _of_heads(path)
    if isinstance(document.get("norm_stats"), Mapping):
        return StatsSource("openpi norm stats", where, "openpi", [_set("", document, where)])
    if "metadata_by_tag" in document:
        return _of_tags(document["metadata_by_tag"], where)
    features = [name for name in document if name in ALIASES]
    if features and all(_is_stats(document[name]) for name in features):
        return StatsSource("LeRobot stats", where, "lerobot", [_set("", document, where)])
    sets = [_rlds(name, entry, where) for name, entry in document.items() if _has_features(entry)]
    if sets:
        return StatsSource("RLDS statistics", where, "openvla", sets)
    raise ConfigError("holds no stats of state and actions", where=where, hint=_HINT)


def _of_heads(path: Path) -> StatsSource:
    heads = decode_heads(path.read_bytes(), where=str(path))
    # What is padding in a head is known only from its members: trailing zeros are cut later.
    sets = [
        StatSet(
            key,
            {f: feature_stats(stats[f], f"{path}, head {key}, {f}") for f in VECTOR_FEATURES},
            list(heads.norm_key_to_dataset_names[key]),
        )
        for key, stats in zip(heads.norm_keys, heads.per_norm_key_stats, strict=True)
    ]
    return StatsSource("norm heads", str(path), "opentau", sets)


def _of_dataset(path: Path) -> StatsSource:
    from opentau_prep.metadata.dataset import load_dataset_metadata
    from opentau_prep.metadata.features import default_columns
    from opentau_prep.metadata.select import selected_stats

    stats = selected_stats(load_dataset_metadata(path), None)
    columns = default_columns(stats)
    if not columns:
        raise ConfigError("its stats have neither state nor actions", where=str(path))
    features = {f: feature_stats(stats[c], f"{path}, {c}") for f, c in columns.items()}
    return StatsSource("LeRobot stats", str(path), "lerobot", [StatSet("", features)])


def _of_openpi(files: Sequence[Path], assets: Path) -> StatsSource:
    sets = []
    for file in files:
        document = read_json_object(open_storage(file.parent), file.name)
        name = file.parent.relative_to(assets).as_posix()
        sets.append(_set("" if len(files) == 1 else name, document, str(file)))
    where = str(files[0] if len(files) == 1 else assets)
    return StatsSource("openpi norm stats", where, "openpi", sets)


def _of_tags(tags: Any, where: str) -> StatsSource:
    """Read stats by tag of an embodiment, each `{"state_stats", "action_stats"}` (MolmoAct)."""
    sets = []
    for tag, entry in tags.items() if isinstance(tags, Mapping) else ():
        pairs = (("state", "state_stats"), ("actions", "action_stats"))
        found = {f: feature_stats(entry[n], f"{where}, {tag}") for f, n in pairs if n in entry}
        sets.append(StatSet(str(tag), found))
    if not sets:
        raise ConfigError("holds no stats of state and actions", where=where, hint=_HINT)
    modes: dict[str, Normalization | None] = dict.fromkeys(VECTOR_FEATURES, "quantile")
    return StatsSource("norm stats by tag", where, "lerobot", sets, modes)


def _rlds(name: str, entry: Mapping[str, Any], where: str) -> StatSet:
    made = _set(name, entry, where)
    masks = {
        ALIASES[feature]: np.asarray(entry[feature]["mask"], dtype=np.bool_)
        for feature in entry
        if feature in ALIASES and isinstance(entry[feature].get("mask"), list)
    }
    return StatSet(made.name, made.features, (), masks)


def _set(name: str, document: Mapping[str, Any], where: str) -> StatSet:
    inner = document.get("norm_stats", document)
    features = {
        ALIASES[feature]: feature_stats(inner[feature], f"{where}, {feature}")
        for feature in inner
        if feature in ALIASES
    }
    if not features:
        raise ConfigError("holds no stats of state and actions", where=where, hint=_HINT)
    return StatSet(name, features)


def _has_features(entry: object) -> bool:
    return isinstance(entry, Mapping) and any(
        name in ALIASES and _is_stats(value) for name, value in entry.items()
    )


def _is_stats(entry: object) -> bool:
    return isinstance(entry, Mapping) and any(stat in entry for stat in STATS)
