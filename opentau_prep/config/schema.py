"""The mixture JSON as typed, frozen models.

Unknown fields are refused; types are strict (`"3"` is no number, `true` no 1); every fault is found
at once. The models are made by `opentau_prep.config.load`, which reports faults with file and JSON
path; a model remembers where it came from, so that later errors can do the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

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
from opentau_prep.config.explain import ENTRY_FAULT
from opentau_prep.config.faults import JsonPath, place
from opentau_prep.config.names import make_dataset_names
from opentau_prep.config.refs import Origin
from opentau_prep.storage.urls import safe_url

__all__ = ["DatasetEntry", "Mixture", "MixtureSource", "ResampleStrategy"]

ResampleStrategy = Literal["nearest", "linear"]

# Indices are bounded so that they fit every integer type that they meet later.
_Index = Annotated[int, Field(ge=0, lt=2**31)]
# JSON has lists only: taking one for a tuple is not a loose conversion. Items stay strict.
_Indices = Annotated[tuple[_Index, ...], Field(strict=False)]
_DistinctIndices = Annotated[_Indices, AfterValidator(check_distinct)]
_CacheName = Annotated[str, AfterValidator(check_cache_name)]
_PlainText = Annotated[str, AfterValidator(check_plain_text)]
_StandardName = Annotated[str, AfterValidator(check_standard_name)]
_Dim = Annotated[int, BeforeValidator(parse_dim)]
_Stat = Annotated[Any, AfterValidator(check_stat)]
_Fraction = Annotated[float, Field(ge=0, lt=1)]
_NonNegative = Annotated[float, Field(ge=0)]


_NOWHERE: tuple[Origin, JsonPath] = (Origin(None), ())


class _NoEffect:
    """Marks a field that is accepted with any value: it changes nothing that is made here."""


_Ignored = Annotated[Any, _NoEffect]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def fields_without_effect(cls) -> frozenset[str]:
        """Return the names of the fields that are accepted but change nothing here."""
        return frozenset(
            name for name, field in cls.model_fields.items() if _NoEffect in field.metadata
        )


class DatasetEntry(_Record):
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

    # The order matters: a check across fields belongs to the last of them.
    repo_id: _CacheName | None = None
    vqa: Annotated[_CacheName | None, Field(validate_default=True)] = None
    root: _PlainText | None = None
    revision: _CacheName | None = None
    episodes: _DistinctIndices | None = None
    excluded_episodes: _Indices | None = None
    data_features_name_mapping: dict[_StandardName, _PlainText] | None = None
    robot_type: str | None = None
    control_mode: str | None = None
    tolerance_s: _NonNegative | None = None
    skip_timestamp_check: bool | None = None
    val_split_ratio: _Fraction | None = None
    state_index: _DistinctIndices | None = None
    action_index: _DistinctIndices | None = None
    use_delta_joint_actions: bool = False
    delta_action_state_map: Annotated[dict[_Dim, _Index] | None, Field(validate_default=True)] = (
        None
    )
    stats: dict[str, dict[str, _Stat]] | None = None
    use_imagenet_stats: bool = True
    num_samples: Annotated[int, Field(gt=0, lt=2**53)] | None = None
    image_transforms: _Ignored = None
    video_backend: _Ignored = None
    prompt_substitutions: _Ignored = None

    # None is free where a default made for each of thousands of entries would not be.
    _spot: tuple[Origin, JsonPath] | None = PrivateAttr(default=None)

    @field_validator("vqa")
    @classmethod
    def _one_id(cls, vqa: str | None, info: ValidationInfo) -> str | None:
        # A field that was faulty itself is not in `info.data`: it has been reported already.
        if "repo_id" in info.data and (info.data["repo_id"] is None) == (vqa is None):
            found = "neither" if vqa is None else "both"
            message = f"found {found} of repo_id and vqa, expected exactly one"
            raise PydanticCustomError(ENTRY_FAULT, message)
        return vqa

    @field_validator("delta_action_state_map")
    @classmethod
    def _map_with_flag(
        cls, mapping: dict[int, int] | None, info: ValidationInfo
    ) -> dict[int, int] | None:
        flag = info.data.get("use_delta_joint_actions")
        if flag is True and not mapping:
            raise ValueError("missing: use_delta_joint_actions is true and needs it")
        if flag is False and mapping:
            raise ValueError("has no effect unless use_delta_joint_actions is true")
        return mapping

    @field_validator("num_samples")
    @classmethod
    def _samples_of_vqa(cls, num_samples: int | None, info: ValidationInfo) -> int | None:
        if num_samples is not None and "vqa" in info.data and info.data["vqa"] is None:
            raise ValueError("has an effect on vqa entries only")
        return num_samples

    @field_validator("state_index", "action_index", "use_delta_joint_actions")
    @classmethod
    def _columns_of_robots(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("vqa") is not None:
            raise ValueError("applies to robot datasets only: a vqa entry has no columns")
        return value

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


class Mixture(_Record):
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

    datasets: Annotated[
        tuple[DatasetEntry, ...], Field(strict=False), AfterValidator(check_some_datasets)
    ]
    weights: Annotated[tuple[_NonNegative, ...], Field(strict=False)] | None = None
    action_freq: Annotated[float, Field(gt=0)] | None = None
    vector_resample_strategy: ResampleStrategy = "nearest"
    image_resample_strategy: ResampleStrategy = "nearest"
    val_split_ratio: _Fraction = 0.05
    require_non_empty_robot_type: bool = False
    require_non_empty_control_mode: bool = False
    tolerance_s: _NonNegative = 1e-4
    skip_timestamp_check: bool = False
    delta_stats_max_rows: Annotated[int, Field(gt=0, lt=2**63)] | None = None
    n_obs_history: _Ignored = None
    history_state_drop_prob: _Ignored = None
    subgoal_drop_prob: _Ignored = None
    subgoal_end_of_segment_prob: _Ignored = None
    response_drop_prob: _Ignored = None
    metadata_drop_all_prob: _Ignored = None
    metadata_drop_each_prob: _Ignored = None
    val_enable_optional_key_dropout: _Ignored = None
    val_enable_prompt_substitution: _Ignored = None
    emit_fps: _Ignored = None

    _origin: Origin = PrivateAttr(default_factory=lambda: Origin(None))
    _path: JsonPath = PrivateAttr(default=())
    _source: MixtureSource = PrivateAttr(default_factory=MixtureSource)

    @field_validator("weights")
    @classmethod
    def _weights_fit(
        cls, weights: tuple[float, ...] | None, info: ValidationInfo
    ) -> tuple[float, ...] | None:
        # A faulty entry leaves `datasets` out of `info.data`; the loader still knows the number.
        entries = info.data.get("datasets")
        context = info.context or {}
        n_datasets = len(entries) if entries is not None else context.get("n_datasets")
        if weights is not None:
            check_weights(weights, n_datasets)
        return weights

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
        own = self.model_fields_set & self.fields_without_effect()
        of_entries = {name for entry in self.datasets for name in entry.model_fields_set}
        of_entries &= DatasetEntry.fields_without_effect()
        return (*sorted(own), *sorted(f"datasets[].{name}" for name in of_entries))

    def where(self, *keys: str | int) -> str:
        """Return the place of a value of this mixture for an error: `file: JSON path`.

        Args:
            *keys: Keys and indices below the mixture, such as `"weights", 2`; none for all of it.
        """
        return place(self._origin.at(keys).file, (*self._path, *keys)) or "the mixture"

    def bind(self, origin: Origin, path: JsonPath, source: MixtureSource) -> Mixture:
        """Remember where this mixture and its entries came from; the loader's last step."""
        self._origin, self._path, self._source = origin, path, source
        for index, entry in enumerate(self.datasets):
            entry._spot = origin.at(("datasets", index)), (*path, "datasets", index)
        return self
