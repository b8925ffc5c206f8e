"""From a mixture to the datasets that are to be checked, each once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opentau_prep.errors import EngineError, PrepError
from opentau_prep.metadata.info import INFO
from opentau_prep.metadata.locate import LocateOptions, locate_dataset
from opentau_prep.storage import is_remote, open_storage
from opentau_prep.validate.view import EntrySpec, Target

if TYPE_CHECKING:
    from opentau_prep.config.schema import DatasetEntry, Mixture

__all__ = ["Subject", "find_targets"]


@dataclass(frozen=True)
class Subject:
    """What is to be checked.

    Attributes:
        mixture: The mixture, or what is left of it; None when nothing is.
        name: The mixture file's name, or `roots`.
        positions: Where each of the mixture's entries stands in its file.
        faults: (JSON path, message) of what is wrong with the file.
        from_file: Whether it is a mixture file, rather than roots on the command line.
    """

    mixture: Mixture | None
    name: str
    positions: Sequence[int] = ()
    faults: Sequence[tuple[str, str]] = ()
    from_file: bool = False


def find_targets(
    subject: Subject,
    *,
    download: bool = False,
    artifact_root: Path | None = None,
    deep: bool = False,
) -> tuple[list[Target], list[tuple[str, PrepError]]]:
    """Return the datasets, and (name, why) of those that are nowhere.

    Args:
        subject: The mixture.
        download: Whether the hub may be asked.
        artifact_root: Where artifacts lie.
        deep: Whether frames will be read.

    Raises:
        EngineError: A root is a URL whose driver is not installed.
    """
    if subject.mixture is None:
        return [], []
    options = LocateOptions(download=download, frames=deep)
    by_root: dict[str, tuple[str, str, list[EntrySpec]]] = {}
    lost: list[tuple[str, PrepError]] = []
    named = zip(subject.mixture.dataset_names, subject.mixture.datasets, strict=True)
    for number, (name, config) in enumerate(named):
        if config.is_vqa:
            continue
        try:
            root = _locate(config, options)
            if is_remote(root):
                open_storage(root).exists(INFO)  # told once if it cannot be asked, not by each rule
        except PrepError as fault:
            if isinstance(fault, EngineError) and is_remote(config.root or ""):
                raise  # a package to be installed is no fault of the dataset
            lost.append((name, fault))
            continue
        position = subject.positions[number] if subject.positions else number
        spec = _spec(position, name, config, subject.mixture)
        key = f"{os.path.realpath(root)}\0{config.repo_id}"
        by_root.setdefault(key, (root, str(config.repo_id), []))[2].append(spec)
    return [
        Target(
            name=repo_id if _is_alone(repo_id, by_root) else entries[0].name,
            root=root,
            repo_id=repo_id,
            entries=tuple(entries),
            from_mixture=subject.from_file,
            artifact_root=artifact_root,
            deep=deep,
        )
        for root, repo_id, entries in by_root.values()
    ], lost


def _is_alone(repo_id: str, by_root: dict[str, tuple[str, str, list[EntrySpec]]]) -> bool:
    return sum(other == repo_id for _, other, _ in by_root.values()) == 1


def _locate(config: DatasetEntry, options: LocateOptions) -> str:
    """Return the dataset's folder; one without an info.json is a dataset too, and a broken one."""
    json_dir = config.root_file.parent if config.root_file is not None else None
    try:
        return str(
            locate_dataset(
                repo_id=config.repo_id,
                root=config.root,
                revision=config.revision,
                json_dir=json_dir,
                options=options,
            )
        )
    except PrepError:
        local = config.root is not None and not is_remote(config.root)
        given = Path(config.root or "").expanduser() if local else None
        for folder in (given, json_dir / given if given and json_dir else None):
            if folder is not None and folder.is_dir():
                return str(folder)
        raise


def _spec(position: int, name: str, config: DatasetEntry, mixture: Mixture) -> EntrySpec:
    tolerance, skip = config.tolerance_s, config.skip_timestamp_check
    return EntrySpec(
        index=position,
        name=name,
        config=config,
        tolerance_s=mixture.tolerance_s if tolerance is None else tolerance,
        skip_timestamp_check=mixture.skip_timestamp_check if skip is None else skip,
        action_freq=mixture.action_freq,
    )
