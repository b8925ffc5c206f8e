"""One clean dataset in each format, and ways to break it in one respect."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mp4_files import write_videos

from opentau_prep.config.load import mixture_from_roots
from opentau_prep.config.salvage import Salvage, salvage_mixture
from opentau_prep.context import RunContext
from opentau_prep.demo.spec import DatasetSpec, EpisodeData, Version
from opentau_prep.demo.trajectories import ARM6, demonstrate
from opentau_prep.demo.write import write_dataset
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.stats import prepare_stats
from opentau_prep.stats.options import StatsOptions
from opentau_prep.validate import CheckOptions, ValidateReport, validate

FPS = 10
LENGTHS = (60, 66, 72, 78, 84, 90)
Frames = Callable[[list[EpisodeData]], list[EpisodeData]]
Files = Callable[[Path], None]


@dataclass(frozen=True)
class Mutation:
    """One way to break a dataset.

    Attributes:
        name: What is done.
        codes: The rules that must fire, and no other.
        version: The format it is done to.
        spec: Fields of `DatasetSpec` to change.
        frames: Changes the frames before they are written, so that the stats are theirs.
        files: Changes what was written.
    """

    name: str
    codes: frozenset[str]
    version: Version = "v2.1"
    spec: tuple[tuple[str, Any], ...] = ()
    frames: Frames | None = None
    files: Files | None = None


def mutation(name: str, codes: str, version: Version = "v2.1", **changes: Any) -> Mutation:
    """Return a mutation; `codes` is a string of codes apart by blanks."""
    frames, files = changes.pop("frames", None), changes.pop("files", None)
    spec = tuple(changes.items())
    return Mutation(name, frozenset(codes.split()), version, spec, frames, files)


def clean_spec(version: Version) -> DatasetSpec:
    return DatasetSpec(
        version,
        "demo_arm6",
        "joint",
        FPS,
        tasks=("pick up the cube", "open the drawer"),
        state_names=ARM6.names,
        action_names=ARM6.names,
        cameras=("observation.images.front",),
        quantiles=True,
        episodes_per_file=3,
    )


def clean_episodes() -> list[EpisodeData]:
    episodes = []
    for number, length in enumerate(LENGTHS):
        task = number % 2
        motion = demonstrate(ARM6, n_frames=length, task_seed=70 + task, episode_seed=number)
        episodes.append(EpisodeData(motion.state, motion.actions, task))
    return episodes


def write_broken(root: Path, change: Mutation) -> None:
    """Write a dataset with the mutation."""
    episodes = clean_episodes()
    if change.frames is not None:
        episodes = change.frames(episodes)
    write_dataset(root, replace(clean_spec(change.version), **dict(change.spec)), episodes)
    write_videos(root)
    if change.files is not None:
        change.files(root)


def check(*roots: Path, deep: bool = True, **options: Any) -> ValidateReport:
    """Validate roots in this process."""
    subject = Salvage.of(mixture_from_roots(list(roots)))
    return validate(subject, RunContext(workers=1), CheckOptions(deep=deep, **options))


def check_mixture(
    file: Path, *, deep: bool = False, prep_dir: Path | None = None, **options: Any
) -> ValidateReport:
    """Validate a mixture file in this process."""
    context = RunContext(workers=1, prep_dir=prep_dir)
    return validate(salvage_mixture(file), context, CheckOptions(deep=deep, **options))


def codes_of(report: ValidateReport) -> set[str]:
    return {finding.code for finding in report.findings}


# Changing files


def info(**values: Any) -> Files:
    """Set fields of info.json; `...` removes one; a function is given the old value."""

    def change(root: Path) -> None:
        file = root / "meta/info.json"
        content = json.loads(file.read_text())
        for name, value in values.items():
            if value is ...:
                content.pop(name, None)
            else:
                content[name] = value(content.get(name)) if callable(value) else value
        file.write_text(json.dumps(content))

    return change


def feature(column: str, **values: Any) -> Files:
    """Set fields of a feature in info.json."""

    def edit(features: dict[str, Any]) -> dict[str, Any]:
        features[column] = {**features.get(column, {}), **values}
        return features

    return info(features=edit)


def lines(rel: str, edit: Callable[[list[Any]], list[Any]]) -> Files:
    """Change the rows of a JSON-lines file."""

    def change(root: Path) -> None:
        file = root / rel
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in edit(rows)))

    return change


def document(rel: str, edit: Callable[[Any], Any]) -> Files:
    """Change a JSON file."""

    def change(root: Path) -> None:
        file = root / rel
        file.write_text(json.dumps(edit(json.loads(file.read_text()))))

    return change


def table(rel: str, edit: Callable[[pa.Table], pa.Table]) -> Files:
    """Change a parquet file; `*` in the path for all that fit."""

    def change(root: Path) -> None:
        for file in sorted(root.glob(rel)):
            pq.write_table(edit(pq.read_table(file)), file)

    return change


def written(rel: str, content: bytes | None) -> Files:
    """Replace a file's content; None removes it."""

    def change(root: Path) -> None:
        file = root / rel
        if content is None:
            file.unlink()
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    return change


def with_stats(**options: Any) -> Files:
    """Let `stats` add what it makes of the frames."""

    def change(root: Path) -> None:
        resolved = resolve_mixture(mixture_from_roots([root]))
        prepare_stats(resolved, RunContext(workers=1, force=True), StatsOptions(**options))

    return change


def both(*changes: Files) -> Files:
    """Do one change after the other."""

    def change(root: Path) -> None:
        for each in changes:
            each(root)

    return change


def column(name: str, edit: Callable[[list[Any]], list[Any]]) -> Callable[[pa.Table], pa.Table]:
    """Return what changes one column of a table, as a Python list."""

    def change(content: pa.Table) -> pa.Table:
        position = content.column_names.index(name)
        values = edit(content.column(name).to_pylist())
        kind = content.schema.field(name).type
        return content.set_column(position, name, pa.array(values, kind))

    return change


# Changing frames


def episode(number: int, **edits: Callable[[np.ndarray], np.ndarray]) -> Frames:
    """Change `state`, `actions` or extra columns of one episode (-1: of all)."""

    def change(episodes: list[EpisodeData]) -> list[EpisodeData]:
        return [_edited(e, edits) if number in (-1, i) else e for i, e in enumerate(episodes)]

    return change


def _edited(old: EpisodeData, edits: dict[str, Callable[[np.ndarray], np.ndarray]]) -> EpisodeData:
    changed = {
        name: edit(getattr(old, name).copy())
        for name, edit in edits.items()
        if name in ("state", "actions")
    }
    extra = {
        name: edit(np.arange(len(old)))
        for name, edit in edits.items()
        if name not in ("state", "actions")
    }
    return replace(old, **changed, extra={**old.extra, **extra})


def put(row: Any, dim: Any, value: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return what sets some frames of a dim; a function is given the old values."""

    def change(values: np.ndarray) -> np.ndarray:
        values[row, dim] = value(values[row, dim]) if callable(value) else value
        return values

    return change


def times(edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Return what makes timestamps of frame numbers, then changes them."""

    def change(numbers: np.ndarray) -> np.ndarray:
        return edit(numbers / FPS).astype(np.float32)

    return change


def drop(rows: Sequence[Any], *positions: int) -> list[Any]:
    """Return rows without some of them."""
    return [row for i, row in enumerate(rows) if i not in positions]
