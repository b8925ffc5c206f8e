"""The mixture JSON as typed, frozen records.

Unknown fields are refused; types are strict (`"3"` is no number, `true` no 1); every fault is found
at once. The records are made by `opentau_prep.config.load`, which reports faults with file and JSON
path; a record remembers where it came from, so that later errors can do the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from opentau_prep.config.checks import (
    check_cache_name,
    check_distinct,
    check_plain_text,
    check_some_datasets,
    check_standard_name,
    check_stat,
    check_weights,
    parse_dim,
)
from opentau_prep.config.faults import JsonPath, place
from opentau_prep.config.names import make_dataset_names
from opentau_prep.config.record import (
    FAULTY,
    Faults,
    Record,
    anything,
    array,
    choice,
    flag,
    mapping,
    number,
    optional,
    reads,
    record,
    text,
    whole,
)
from opentau_prep.config.refs import Origin
from opentau_prep.storage.urls import safe_url

__all__ = ["DatasetEntry", "Mixture", "MixtureSource", "ResampleStrategy"]

ResampleStrategy = Literal["nearest", "linear"]

# Indices are bounded so that they fit every integer type that they meet later.
_INDEX = whole(at_least=0, below=2**31)
_PLAIN_TEXT = optional(text(check_plain_text))
_CACHE_NAME = optional(text(check_cache_name))
_STRING = optional(text())
_DISTINCT = optional(array(_INDEX, check_distinct))
_FRACTION = number(at_least=0, below=1)
_NON_NEGATIVE = number(at_least=0)
_STRATEGY = choice("nearest", "linear")

_NOWHERE: tuple[Origin, JsonPath] = (Origin(None), ())


def _stat(value: object, path: JsonPath, faults: Faults) -> Any:
    try:
        return check_stat(value)
    except ValueError as error:
        faults.append((path, str(error)))
        return FAULTY


def _is_robots(value: Any, sound: Mapping[str, Any]) -> None:
    if value and sound.get("vqa") is not None:
        raise ValueError("applies to robot datasets only: a vqa entry has no columns")


def _goes_with_flag(mapped: dict[int, int] | None, sound: Mapping[str, Any]) -> None:
    wanted = sound.get("use_delta_joint_actions")
    if wanted is True and not mapped:
        raise ValueError("missing: use_delta_joint_actions is true and needs it")
    if wanted is False and mapped:
        raise ValueError("has no effect unless use_delta_joint_actions is true")


def _is_of_vqa(num_samples: int | None, sound: Mapping[str, Any]) -> None:
    if num_samples is not None and sound.get("vqa", "faulty") is None:
        raise ValueError("has an effect on vqa entries only")


def _fits_datasets(weights: tuple[float, ...] | None, sound: Mapping[str, Any]) -> None:
    entries = sound["raw"].get("datasets")  # faulty ones count, too
    if weights is not None:
        check_weights(weights, len(entries) if isinstance(entries, list) else None)


@dataclass(frozen=True)
class DatasetEntry(Record):
    """One entry of a mixture's `datasets`, as written: null where the file is silent.

    Attributes:
        repo_id: Hub id of a robot dataset; exactly one of `repo_id` and `vqa` is set.
        vqa: Name of a vision-language dataset, which carries no robot data.
        root: Folder of the dataset: relative to the working directory, then to `root_file`.
        revision: Revision on the hub.
        episodes: The episodes to select (distinct, as given), or None for all.
        excluded_episodes: The episodes to leave out of those.
        data_features_name_mapping: Standard name -> column.
        robot_type: Overrides `info.json` when not None; the empty string does, too.
        control_mode: The same.
        tolerance_s: Overrides the mixture's, in seconds.
        skip_timestamp_check: Overrides the mixture's.
        val_split_ratio: Overrides the mixture's.
        state_index: Columns of the state to keep, in this order (parquet space), or None for all.
        action_index: Columns of the actions to keep, in this order (parquet space).
        use_delta_joint_actions: Whether actions are made relative to the state.
        delta_action_state_map: Action dim -> the state dim it is relative to; set exactly when
            `use_delta_joint_actions` is.
        stats: Feature -> stat -> number or nested list: replaces the dataset's own.
        use_imagenet_stats: Whether ImageNet's stats take the place of the cameras' own.
        num_samples: How many samples a vqa dataset has, which no metadata holds.
    """

    PLACE: ClassVar[str] = "the entries of datasets"

    # The order matters: a check across fields belongs to the last of them.
    repo_id: str | None = reads(_CACHE_NAME)
    vqa: str | None = reads(_CACHE_NAME)
    root: str | None = reads(_PLAIN_TEXT)
    revision: str | None = reads(_CACHE_NAME)
    episodes: tuple[int, ...] | None = reads(_DISTINCT)
    excluded_episodes: tuple[int, ...] | None = reads(optional(array(_INDEX)))
    data_features_name_mapping: dict[str, str] | None = reads(
        optional(mapping(text(check_plain_text), check_standard_name))
    )
    robot_type: str | None = reads(_STRING)
    control_mode: str | None = reads(_STRING)
    tolerance_s: float | None = reads(optional(_NON_NEGATIVE))
    skip_timestamp_check: bool | None = reads(optional(flag))
    val_split_ratio: float | None = reads(optional(_FRACTION))
    state_index: tuple[int, ...] | None = reads(_DISTINCT, after=_is_robots)
    action_index: tuple[int, ...] | None = reads(_DISTINCT, after=_is_robots)
    use_delta_joint_actions: bool = reads(flag, False, after=_is_robots)
    delta_action_state_map: dict[int, int] | None = reads(
        optional(mapping(_INDEX, parse_dim)), after=_goes_with_flag
    )
    stats: dict[str, dict[str, Any]] | None = reads(optional(mapping(mapping(_stat))))
    use_imagenet_stats: bool = reads(flag, True)
    num_samples: int | None = reads(optional(whole(above=0, below=2**53)), after=_is_of_vqa)
    image_transforms: Any = reads(anything)
    video_backend: Any = reads(anything)
    prompt_substitutions: Any = reads(anything)

    _spot: tuple[Origin, JsonPath] | None = field(default=None, repr=False, kw_only=True)

    @classmethod
    def fault_of(cls, sound: Mapping[str, Any]) -> str | None:
        """See `Record.fault_of`."""
        if "repo_id" not in sound or "vqa" not in sound:  # reported already
            return None
        named = [sound["repo_id"] is not None, sound["vqa"] is not None]
        if sum(named) == 1:
            return None
        found = "both" if all(named) else "neither"
        return f"found {found} of repo_id and vqa, expected exactly one"

    @property
    def id(self) -> str:
        """Return `repo_id`, or `vqa`: what the dataset's name in the mixture is made from."""
        return self.repo_id if self.repo_id is not None else str(self.vqa)

    @property
    def is_vqa(self) -> bool:
        """Return whether the entry carries no robot data."""
        return self.vqa is not None

    @property
    def json_path(self) -> str:
        """Return the entry's JSON path, such as `dataset_mixture.datasets[3]`."""
        return place(None, (self._spot or _NOWHERE)[1])

    @property
    def file(self) -> Path | None:
        """Return the file that holds the entry, or None when it came from no file."""
        return (self._spot or _NOWHERE)[0].file

    @property
    def root_file(self) -> Path | None:
        """Return the file that holds `root`: the second place a relative root is looked up from."""
        origin, _ = self._spot or _NOWHERE
        return origin.child("root").file if origin.children else origin.file

    def where(self, *keys: str | int) -> str:
        """Return the place of a value of this entry for an error: `file: JSON path`.

        Args:
            *keys: Keys and indices below the entry, such as `"state_index", 1`; none for the entry.
        """
        origin, path = self._spot or _NOWHERE
        file = origin.at(keys).file
        if file is None and self.root is not None:  # made of a plain root: its index says nothing
            return place(safe_url(self.root), keys)
        return place(file, (*path, *keys))


@dataclass(frozen=True)
class MixtureSource:
    """Where a mixture came from, and what identifies it.

    Attributes:
        path: The JSON file that was named, or None when there was none.
        files: Every file that was read for it, `path` first.
        sha256: Hash of what the resolved mixture is, wherever it lies; see
            `opentau_prep.config.load.mixture_sha256`.
        mixture_id: Short name for artifacts, safe as a file name.
        training: What the training config around the mixture says of sizes; see
            `opentau_prep.config.training.training_settings`.
    """

    path: Path | None = None
    files: tuple[Path, ...] = ()
    sha256: str = ""
    mixture_id: str = ""
    training: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Mixture(Record):
    """A mixture of datasets, as written; defaults are filled in.

    Attributes:
        datasets: The entries, in order; at least one.
        weights: Sampling weights parallel to `datasets`, or None: in proportion to frames.
        action_freq: Rate of the action chunk's steps in Hz, or None: each dataset's own fps.
        vector_resample_strategy: How vectors between two frames are made.
        image_resample_strategy: The same for images.
        val_split_ratio: Share of a dataset's selected frames that is held out.
        require_non_empty_robot_type: Whether a dataset without a robot type stops the run.
        require_non_empty_control_mode: The same for the control mode.
        tolerance_s: Tolerance of the timestamp check in seconds.
        skip_timestamp_check: Whether that check is left out.
        delta_stats_max_rows: Most rows that stats of delta actions are made from, or None.
    """

    PLACE: ClassVar[str] = "the mixture"

    datasets: tuple[DatasetEntry, ...] = reads(
        array(record(DatasetEntry), check_some_datasets), ...
    )
    weights: tuple[float, ...] | None = reads(optional(array(_NON_NEGATIVE)), after=_fits_datasets)
    action_freq: float | None = reads(optional(number(above=0)))
    vector_resample_strategy: ResampleStrategy = reads(_STRATEGY, "nearest")
    image_resample_strategy: ResampleStrategy = reads(_STRATEGY, "nearest")
    val_split_ratio: float = reads(_FRACTION, 0.05)
    require_non_empty_robot_type: bool = reads(flag, False)
    require_non_empty_control_mode: bool = reads(flag, False)
    tolerance_s: float = reads(_NON_NEGATIVE, 1e-4)
    skip_timestamp_check: bool = reads(flag, False)
    delta_stats_max_rows: int | None = reads(optional(whole(above=0, below=2**63)))
    n_obs_history: Any = reads(anything)
    history_state_drop_prob: Any = reads(anything)
    subgoal_drop_prob: Any = reads(anything)
    subgoal_end_of_segment_prob: Any = reads(anything)
    response_drop_prob: Any = reads(anything)
    metadata_drop_all_prob: Any = reads(anything)
    metadata_drop_each_prob: Any = reads(anything)
    val_enable_optional_key_dropout: Any = reads(anything)
    val_enable_prompt_substitution: Any = reads(anything)
    emit_fps: Any = reads(anything)

    _origin: Origin = field(default=_NOWHERE[0], repr=False, kw_only=True)
    _path: JsonPath = field(default=(), repr=False, kw_only=True)
    _source: MixtureSource = field(default=MixtureSource(), repr=False, kw_only=True)

    @property
    def path(self) -> Path | None:
        """Return the JSON file that was named, or None for a mixture made of plain roots."""
        return self._source.path

    @property
    def files(self) -> tuple[Path, ...]:
        """Return every file that was read for the mixture, the named one first."""
        return self._source.files

    @property
    def sha256(self) -> str:
        """Return the hash of the resolved mixture, in hexadecimal."""
        return self._source.sha256

    @property
    def mixture_id(self) -> str:
        """Return the file's stem and the first 12 digits of the hash: safe as a file name."""
        return self._source.mixture_id

    @property
    def training(self) -> Mapping[str, int]:
        """Return what the training config around the mixture says of sizes, by option name."""
        return self._source.training

    @property
    def roots(self) -> tuple[str, ...]:
        """Return the roots that robot datasets are given, as they are written."""
        return tuple(e.root for e in self.datasets if e.root is not None and not e.is_vqa)

    @property
    def dataset_names(self) -> tuple[str, ...]:
        """Return the mixture-level name of each entry, parallel to `datasets`."""
        return tuple(make_dataset_names([entry.id for entry in self.datasets]))

    @property
    def ignored_fields(self) -> tuple[str, ...]:
        """Return the fields that the file sets and that change nothing here, sorted.

        A field of the entries is reported once, as `datasets[].video_backend`.
        """
        own = self.given & self.without_effect()
        of_entries = {name for entry in self.datasets for name in entry.given}
        of_entries &= DatasetEntry.without_effect()
        return (*sorted(own), *sorted(f"datasets[].{name}" for name in of_entries))

    def where(self, *keys: str | int) -> str:
        """Return the place of a value of this mixture for an error: `file: JSON path`.

        Args:
            *keys: Keys and indices below the mixture, such as `"weights", 2`; none for all of it.
        """
        return place(self._origin.at(keys).file, (*self._path, *keys)) or "the mixture"

    def bind(self, origin: Origin, path: JsonPath, source: MixtureSource) -> Mixture:
        """Remember where this mixture and its entries came from; the loader's last step."""
        for index, entry in enumerate(self.datasets):
            spot = origin.at(("datasets", index)), (*path, "datasets", index)
            object.__setattr__(entry, "_spot", spot)  # frozen for all others
        return replace(self, _origin=origin, _path=path, _source=source)
