"""Stats of delta actions: the artifact that `stats` makes and `heads` reads.

An entry with `use_delta_joint_actions` is trained on actions minus the state at the start of the
chunk, and training then takes the stats of its state from the same frames. What such actions are
depends on the mixture, so there is one artifact per dataset and recipe.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.artifacts.jsonio import dump_own, load_own
from opentau_prep.artifacts.place import Location, Place, dataset_place, files_beside
from opentau_prep.artifacts.provenance import Provenance
from opentau_prep.errors import ConfigError, DataError, MetadataError
from opentau_prep.frames.chunks import ResampleStrategy
from opentau_prep.metadata.inputs import describe_inputs
from opentau_prep.notices import warn
from opentau_prep.stats.sketch import QuantileSketch, decode_sketches, encode_sketches

if TYPE_CHECKING:
    from opentau_prep.config.schema import Mixture
    from opentau_prep.metadata.resolve import ResolvedEntry

__all__ = [
    "DeltaRecipe",
    "DeltaStats",
    "delta_place",
    "delta_recipe",
    "delta_sizes",
    "load_delta_stats",
]

FOLDER = "meta/delta_stats"
SEPARATOR = "-chunk"
ESTIMATOR = "OpenTau 0b153a9"


@dataclass(frozen=True)
class DeltaRecipe:
    """What the delta actions of an entry are, but for the chunk's length.

    Attributes:
        action: The action column.
        state: The state column.
        delta_map: Action dim -> state dim, both columns of the vectors on disk.
        state_index: The columns of the state that training sees, in order, or None for all.
        action_index: The same of the actions.
        episodes: The selected episodes, or None for all.
        fps: Frame rate of the dataset, Hz.
        action_freq: Rate of the chunk's steps, Hz; None means `fps`.
        strategy: How steps between two frames are made: `nearest` or `linear`.
        max_rows: Most chunk starts that are used, or None.
    """

    action: str
    state: str
    delta_map: Mapping[int, int]
    state_index: tuple[int, ...] | None
    action_index: tuple[int, ...] | None
    episodes: tuple[int, ...] | None
    fps: float
    action_freq: float | None
    strategy: ResampleStrategy
    max_rows: int | None

    def as_json(self) -> dict[str, Any]:
        """Return the recipe JSON-ready, the same for the same recipe."""
        pairs = sorted(self.delta_map.items())
        fields = {**self.__dict__, "delta_map": {str(a): s for a, s in pairs}}
        # Left out where there are none, so that the digest of such a recipe is that of older files.
        absent = [name for name in ("state_index", "action_index") if fields[name] is None]
        return {name: value for name, value in fields.items() if name not in absent}

    @property
    def digest(self) -> str:
        """Twelve hex digits that name the recipe in file names."""
        text = json.dumps(self.as_json(), sort_keys=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class DeltaStats:
    """Stats of an entry's delta actions and of its state, of the columns that training sees.

    Attributes:
        stats: `actions` and `state` -> min, max, mean, std, q01 and q99, each (D,) float32, and
            count, (1,) int64: what training computes, bit for bit.
        sketch: The same values of the actions, mergeable.
        chunk_size: Steps per chunk.
        starts: How many chunks there were.
    """

    stats: dict[str, dict[str, NDArray[Any]]]
    sketch: QuantileSketch
    chunk_size: int
    starts: int

    def to_bytes(self, recipe: DeltaRecipe) -> bytes:
        """Return the artifact's content."""
        return dump_own(
            {
                "estimator": ESTIMATOR,
                "chunk_size": self.chunk_size,
                "starts": self.starts,
                "recipe": recipe.as_json(),
                "stats": self.stats,
                "sketch": encode_sketches({"actions": self.sketch}),
            }
        )

    @classmethod
    def from_bytes(
        cls, data: bytes, where: str, *, command: str = "opentau-prep stats"
    ) -> DeltaStats:
        """Read what `to_bytes` gave.

        Args:
            data: The content.
            where: The file, for errors.
            command: What recomputes it.

        Raises:
            MetadataError: It is something else, damaged, or from a version whose stats of delta
                actions were not those of training.
        """
        try:
            record = load_own(data, where=where)
            if "estimator" not in record and "quantiles" in record:
                raise MetadataError(
                    "is stale: it holds exact stats of delta actions, and heads take those that"
                    f" training estimates ({ESTIMATOR})",
                    where=where,
                    hint=f"Recompute it: `{command}`.",
                )
            stats = {f: _arrays(record["stats"][f]) for f in ("actions", "state")}
            return cls(
                stats,
                decode_sketches(record["sketch"])["actions"],
                int(record["chunk_size"]),
                int(record["starts"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, DataError) as error:
            if isinstance(error, MetadataError):
                raise
            raise MetadataError(
                "holds no stats of delta actions, or is damaged",
                where=where,
                hint=f"Remove the file and recompute it: `{command}`.",
            ) from error


def _arrays(stats: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    return {
        stat: np.asarray(values, dtype=np.int64 if stat == "count" else np.float32)
        for stat, values in stats.items()
    }


def delta_recipe(entry: ResolvedEntry, mixture: Mixture) -> DeltaRecipe:
    """Return what an entry's delta actions are.

    Raises:
        ConfigError: The entry has none, or its state or actions are not mapped to a column.
    """
    config, columns = entry.config, entry.name_map.columns
    if not config.use_delta_joint_actions or not config.delta_action_state_map:
        raise ConfigError("use_delta_joint_actions is not set", where=config.where())
    for name in ("state", "actions"):
        if name not in columns:
            raise ConfigError(
                f"no column is mapped to {name!r}, which delta actions need",
                where=config.where(),
                hint="Set data_features_name_mapping.",
            )
    return DeltaRecipe(
        columns["actions"],
        columns["state"],
        dict(config.delta_action_state_map),
        None if config.state_index is None else tuple(config.state_index),
        None if config.action_index is None else tuple(config.action_index),
        tuple(entry.episodes.tolist()) if entry.is_subset else None,
        float(entry.meta.fps),
        mixture.action_freq,
        mixture.vector_resample_strategy,
        mixture.delta_stats_max_rows,
    )


def delta_place(
    entry: ResolvedEntry, recipe: DeltaRecipe, chunk_size: int, artifact_root: Path | None
) -> Place:
    """Return where the artifact of a recipe and chunk size lies."""
    return dataset_place(
        "delta_stats",
        entry.meta.storage,
        dataset=entry.artifact_name,
        artifact_root=artifact_root,
        recipe=f"{recipe.digest}{SEPARATOR}{chunk_size}",
    )


def load_delta_stats(
    entry: ResolvedEntry,
    mixture: Mixture,
    *,
    chunk_size: int | None = None,
    artifact_root: Path | None = None,
) -> DeltaStats:
    """Return the stats of an entry's delta actions, as `stats --mixture-json` has written them.

    Reads no frames. `result.stats` is `actions` and `state` -> stat -> (D,) array, after
    `action_index` and `state_index`; `result.sketch` is one of the actions.

    Args:
        entry: An entry with `use_delta_joint_actions`.
        mixture: Its mixture: the control rate, resampling and row limit count.
        chunk_size: Steps per chunk; None takes the one that there are stats for.
        artifact_root: Where artifacts lie when not in the dataset; that is looked at next.

    Raises:
        MetadataError: There are none for this map, selection, mixture and chunk size, there are
            some for several chunk sizes and none was named, or the file is damaged. The message
            says which command makes them.
    """
    recipe = delta_recipe(entry, mixture)
    found = _sizes(entry, recipe, artifact_root)
    if chunk_size is None and len(found) > 1:
        raise MetadataError(
            f"there are stats of delta actions for chunks of {', '.join(map(str, sorted(found)))}",
            where=entry.name,
            hint="Say which chunk size is trained, or remove the other files from"
            f" {entry.meta.root}/{FOLDER}.",
        )
    size = chunk_size if chunk_size is not None else next(iter(found), None)
    if size is None or size not in found:
        raise _missing(entry, mixture, size)
    path, provenance = found[size]
    _warn_if_stale(entry, path, provenance)
    try:
        command = _command(mixture, size)
        return DeltaStats.from_bytes(path.read_bytes(), str(path), command=command)
    except OSError as error:
        raise MetadataError(f"cannot be read ({error.strerror})", where=str(path)) from error


def delta_sizes(entry: ResolvedEntry, recipe: DeltaRecipe, artifact_root: Path | None) -> list[int]:
    """Return the chunk sizes that there is an artifact for."""
    return sorted(_sizes(entry, recipe, artifact_root))


def _sizes(
    entry: ResolvedEntry, recipe: DeltaRecipe, artifact_root: Path | None
) -> dict[int, tuple[Location, Location]]:
    """Return chunk size -> (file, its provenance) of all that there is for a recipe."""
    place = delta_place(entry, recipe, 0, artifact_root)
    places: list[tuple[Location, Location]] = [(place.path, place.provenance_path)]
    places += [place.fallback] if place.fallback else []
    found: dict[int, tuple[Location, Location]] = {}
    for path, provenance in places:
        prefix = f"{recipe.digest}{SEPARATOR}"
        for file in files_beside(path, prefix, ".json"):
            size = file.name.removeprefix(prefix).removesuffix(".json")
            if size.isascii() and size.isdigit():
                found.setdefault(int(size), (file, provenance.with_name(file.name)))
    return found


def _missing(entry: ResolvedEntry, mixture: Mixture, size: int | None) -> MetadataError:
    return MetadataError(
        "use_delta_joint_actions is set, but there are no stats of its delta actions"
        + ("" if size is None else f" in chunks of {size}"),
        where=entry.name,
        hint=f"Compute them: `{_command(mixture, size)}`.",
    )


def _command(mixture: Mixture, size: int | None) -> str:
    target = f"--mixture-json {mixture.path}" if mixture.path else "--mixture-json FILE"
    return f"opentau-prep stats {target} --chunk-size {'N' if size is None else size}"


def _warn_if_stale(entry: ResolvedEntry, path: Location, provenance: Location) -> None:
    try:
        record = Provenance.from_bytes(provenance.read_bytes())
    except OSError:
        record = None
    now = describe_inputs(entry.meta, data=False)["episodes"]
    before = None if record is None else record.inputs.get("episodes")
    if before != now:
        was = before.get("count") if isinstance(before, Mapping) else None
        changed = "their origin is unknown" if was is None else f"episodes {was} -> {now['count']}"
        warn(
            "stale_delta_stats",
            f"{path} is stale ({changed}): recompute it with the command `stats`",
            dataset=entry.name,
        )
