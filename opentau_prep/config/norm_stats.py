"""`configs/NAME.json`, or a config of openpi's own: what to compute norm stats of."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from opentau_prep.config.faults import place, shown
from opentau_prep.config.record import Record, flag, optional, reads, record, text, whole
from opentau_prep.config.refs import load_document
from opentau_prep.errors import ConfigError
from opentau_prep.storage.urls import is_remote
from opentau_prep.text import printable

__all__ = [
    "NormStatsColumns",
    "NormStatsConfig",
    "TrainingConfig",
    "load_norm_stats_config",
    "load_training_config",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _some(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


_TEXT = text(_some)
_COUNT = whole(at_least=1)


@dataclass(frozen=True)
class NormStatsColumns(Record):
    """Which columns the vectors are.

    Attributes:
        state: The column of the key `state`.
        actions: The column of the key `actions`.
    """

    PLACE: ClassVar[str] = "columns"

    state: str = reads(_TEXT, ...)
    actions: str = reads(_TEXT, ...)


@dataclass(frozen=True)
class NormStatsConfig(Record):
    """One run of openpi's norm stats, as written; null where the file is silent.

    Attributes:
        base_dir: A folder of parquet files: relative to the working directory, then to this file.
        repo_id: A dataset's hub id; exactly one of `base_dir` and `repo_id` is set.
        action_dim: Width that vectors are padded or cut to.
        columns: The columns; by default those of the dataset, or `observation.state` and `action`.
        output: The file to write; by default `meta/norm_stats.json` of the dataset.
        max_frames: How many frames to take at most.
        clip_abnormal: Whether values outside [-pi, pi] become 0; by default as the format does.
        numpy1_edges: Whether quantiles of float32 data are as under NumPy 1.
    """

    base_dir: str | None = reads(optional(_TEXT))
    repo_id: str | None = reads(optional(_TEXT))
    action_dim: int | None = reads(optional(_COUNT))
    columns: NormStatsColumns | None = reads(optional(record(NormStatsColumns)))
    output: str | None = reads(optional(_TEXT))
    max_frames: int | None = reads(optional(_COUNT))
    clip_abnormal: bool | None = reads(optional(flag))
    numpy1_edges: bool = reads(flag, True)

    _file: Path = field(default=Path(), repr=False, kw_only=True)

    @property
    def file(self) -> Path:
        """The file it was read from."""
        return self._file

    def folder(self) -> Path | None:
        """Return `base_dir` as it is found: from the working directory, else from the file."""
        if self.base_dir is None:
            return None
        if is_remote(self.base_dir):
            raise ConfigError(
                "the openpi format reads folders only",
                where=f"{self._file}: base_dir",
                hint="Copy the data, and name the folder.",
            )
        given = Path(self.base_dir).expanduser()
        nearby = self._file.parent / given
        return given if given.is_dir() or not nearby.is_dir() else nearby

    def bind(self, file: Path) -> NormStatsConfig:
        """Remember the file; the loader's last step."""
        return replace(self, _file=file)


def load_norm_stats_config(name: str, folder: Path = Path("configs")) -> NormStatsConfig:
    """Return the configuration `NAME`, that is `configs/NAME.json`.

    Args:
        name: A plain name, without folder and ending.
        folder: Where configurations lie.

    Raises:
        ConfigError: There is no such file (those that there are get listed), or it is faulty:
            naming file, field, the value and what was expected.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{shown(name)} is no plain name",
            where="--config-name",
            hint=f"Give the name of a file in {folder}/ without .json.",
        )
    file = folder / f"{name}.json"
    if not file.is_file():
        names = sorted(path.stem for path in folder.glob("*.json"))
        known = ", ".join(names[:20]) or "none"
        raise ConfigError(
            "not found, nor is there a package `openpi` that could have such a config",
            where=printable(str(file)),
            hint=f"There are: {known}. For a config of openpi or kai0, run the command with the"
            " Python of its environment.",
        )
    document = load_document(file)
    config = NormStatsConfig.parse(
        document.value,
        family=(NormStatsConfig, NormStatsColumns),
        origin=document.origin,
        file=file,
    )
    if (config.base_dir is None) == (config.repo_id is None):
        found = "neither" if config.base_dir is None else "both"
        raise ConfigError(
            f"found {found} of base_dir and repo_id, expected exactly one", where=place(file)
        )
    return config.bind(file)


@dataclass(frozen=True)
class TrainingConfig:
    """What a TrainConfig of openpi or kai0 says of its norm stats.

    Attributes:
        repo_id: The dataset: for kai0 the path of its folder.
        action_dim: Width of the model's vectors.
        output: The file that training reads: `norm_stats.json` in the config's assets folder.
    """

    repo_id: str | None
    action_dim: int
    output: Path | None


def load_training_config(name: str, folder: Path = Path("configs")) -> TrainingConfig | None:
    """Return openpi's TrainConfig `NAME`.

    Args:
        name: Its name, as in `openpi.training.config.get_config(NAME)`.
        folder: Where configurations of our own are; one called `NAME` comes first.

    Returns:
        The config; None where `NAME.json` exists, or the package `openpi` cannot be imported.

    Raises:
        ConfigError: The package has no config of that name, or it cannot be built.
    """
    if _NAME.fullmatch(name) and (folder / f"{name}.json").is_file():
        return None
    try:
        module = importlib.import_module("openpi.training.config")
    except ImportError:
        return None
    try:
        config = module.get_config(name)
        repo_id = config.data.create(config.assets_dirs, config.model).repo_id
        # A path below the assets folder, unless it is absolute: then it is where the data is.
        output = None if repo_id is None else Path(config.assets_dirs, repo_id, "norm_stats.json")
        return TrainingConfig(repo_id, int(config.model.action_dim), output)
    except Exception as error:
        raise ConfigError(
            f"openpi has no usable config of that name: {printable(str(error))}",
            where=f"--config-name {printable(name)}",
        ) from error
