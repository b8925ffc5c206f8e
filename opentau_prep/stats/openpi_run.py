"""The verb behind `stats --format openpi`: one norm_stats.json for each folder of parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.artifacts import Recipe, dataset_place, publish
from opentau_prep.artifacts.fingerprint import file_inputs
from opentau_prep.artifacts.jsonio import dump_foreign
from opentau_prep.artifacts.place import Place, file_place
from opentau_prep.artifacts.rank import main_rank_notices
from opentau_prep.artifacts.store import OverwriteRefusedError, inspect
from opentau_prep.engine import Failure
from opentau_prep.errors import ConfigError, DataError
from opentau_prep.frames.columns import check_columns, to_matrix
from opentau_prep.metadata.features import default_columns
from opentau_prep.stats.faults import UNREADABLE, DataFault
from opentau_prep.stats.openpi import Changed, OpenpiAccumulator, norm_stats_record, prepared_dtype
from opentau_prep.stats.openpi_report import OpenpiReport, OpenpiResult, norm_stats_differences
from opentau_prep.storage import Storage, is_remote, open_storage, safe_url

if TYPE_CHECKING:
    from opentau_prep.context import RunContext

__all__ = ["KEYS", "Matrix", "OpenpiJob", "openpi_files", "prepare_openpi", "read_ahead"]


@dataclass(frozen=True)
class OpenpiJob:
    """One norm_stats.json.

    Attributes:
        name: The dataset's name.
        root: The folder of parquet files; a `meta/` in it is not looked at.
        columns: `state` and `actions` -> column; None takes those that the files have.
        action_dim: Width that vectors are padded or cut to; None keeps them.
        max_frames: How many frames to take at most.
        clip_abnormal: Whether values outside [-pi, pi] become 0, as in kai0's script.
        numpy1_edges: Whether quantiles of float32 data are as under NumPy 1, which both pin.
        skip_unusable: Whether files that cannot be read, or lack the columns, are skipped and
            counted, as kai0's script does.
        out: The file to write; None means `meta/norm_stats.json` below the root.
    """

    name: str
    root: str
    columns: Mapping[str, str] | None = None
    action_dim: int | None = None
    max_frames: int | None = None
    clip_abnormal: bool = False
    numpy1_edges: bool = True
    skip_unusable: bool = False
    out: Path | None = None

    def __post_init__(self) -> None:
        for name, value in (("action_dim", self.action_dim), ("max_frames", self.max_frames)):
            if value is not None and value < 1:
                option = name.replace("_", "-")
                raise ConfigError(f"must be at least 1, found {value}", where=f"--{option}")

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the numbers, JSON-ready."""
        return {
            "columns": None if self.columns is None else dict(self.columns),
            "action_dim": self.action_dim,
            "max_frames": self.max_frames,
            "clip_abnormal": self.clip_abnormal,
            "numpy1_edges": self.numpy1_edges,
        }


@dataclass(eq=False)
class _Pass:
    """What was read so far."""

    runs: dict[str, OpenpiAccumulator] = field(default_factory=dict)
    dtypes: dict[str, np.dtype[Any]] = field(default_factory=dict)
    frames: int = 0
    processed: int = 0
    findings: list[DataFault] = field(default_factory=list)


class _WiderDtypeError(Exception):
    """A file is float64 after float32 ones: everything has to be run in float64."""


def prepare_openpi(
    jobs: Sequence[OpenpiJob], context: RunContext, *, lost: Sequence[Failure] = ()
) -> OpenpiReport:
    """Compute openpi's norm stats of each folder, or say that they are up to date.

    Args:
        jobs: What to compute; jobs with an `out` must have different ones.
        context: How to run.
        lost: Datasets that could not be opened, for the report.

    Returns:
        The report; the same values on every rank.

    Raises:
        PrepError: A folder failed and `context.keep_going` is off; with it, files that cannot be
            used are findings.
    """
    _check_folders(jobs)
    outs = [job.out for job in jobs if job.out is not None]
    if len(set(outs)) < len(outs):
        raise ConfigError("one --out for several datasets", hint="Run them one by one.")
    threads = 2 if context.workers != 1 and context.stays_here(len(jobs)) else 1
    with main_rank_notices(context.this_rank):
        names = [job.name for job in jobs]
        work = partial(_prepare_one, context=context.for_workers(), threads=threads)
        results = context.map("openpi stats", work, jobs, names)
    return OpenpiReport(
        [r for r in results if isinstance(r, OpenpiResult)],
        [*lost, *(r for r in results if isinstance(r, Failure))],
    )


def _check_folders(jobs: Sequence[OpenpiJob]) -> None:
    stored = next((job.root for job in jobs if is_remote(job.root)), None)
    if stored is not None:
        raise ConfigError(
            "the openpi format reads folders only",
            where=safe_url(stored),
            hint="Use --format lerobot, or copy the dataset's data/ folder.",
        )


def _prepare_one(job: OpenpiJob, *, context: RunContext, threads: int) -> OpenpiResult:
    return context.ensure(_Work(job, context, threads))


class _Work:
    """The norm stats of one folder."""

    def __init__(self, job: OpenpiJob, context: RunContext, threads: int) -> None:
        self.job, self.context, self.threads = job, context, threads
        self.keep_going = context.keep_going or job.skip_unusable
        self.storage = open_storage(job.root)
        self.files = openpi_files(self.storage)
        if not self.files:
            raise DataError("holds no parquet file", where=job.root, hint="Check --base-dir.")
        self.place = _place(job, context.artifact_root)

    @property
    def places(self) -> Sequence[Place]:
        return (self.place,)

    @cached_property
    def recipe(self) -> Recipe:
        opened = self.storage.count_open
        inputs = {"data": file_inputs(Path(self.job.root), self.files, opened=opened)}
        return Recipe("stats", inputs=inputs, parameters=self.job.parameters)

    def finished(self) -> OpenpiResult | None:
        found = inspect(self.place, self.recipe)
        recorded = {} if found.provenance is None else found.provenance.parameters
        left_out, changed = recorded.get("left_out") or [], recorded.get("changed_values", {})
        try:
            findings = [DataFault.from_json(record) for record in left_out]
            shares = {key: Changed.from_json(record) for key, record in changed.items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        if not self.keep_going and any(finding.code == UNREADABLE for finding in findings):
            return None
        found = inspect(self.place, _noting(self.recipe, left_out, changed))
        if found.content is None or not found.fresh:
            return None
        result = self._result(found.content)
        return replace(result, findings=findings, changed=shares)

    def make(self) -> OpenpiResult:
        done = _compute(self)
        stats = {key: each.finish() for key, each in done.runs.items()}
        content = dump_foreign(norm_stats_record(stats), where=str(self.place.path))
        changed = {key: each.changed.as_json() for key, each in done.runs.items()}
        recipe = _noting(self.recipe, [finding.as_json() for finding in done.findings], changed)
        result = self._result(content)
        force, dry_run = self.context.force, self.context.dry_run
        try:
            outcome = publish(self.place, content, recipe, force=force, dry_run=dry_run)
        except OverwriteRefusedError as refused:
            differences = norm_stats_differences(refused.inspection.content or b"", content)
            status = "differs" if differences else "up to date"
            result = replace(result, status=status, differences=differences)
        else:
            result = replace(result, status=outcome.status, backup=outcome.backup)
        return replace(
            result,
            files_processed=done.processed,
            frames=done.frames,
            findings=tuple(done.findings),
            changed={key: each.changed for key, each in done.runs.items()},
        )

    def _result(self, content: bytes) -> OpenpiResult:
        job, path = self.job, self.place.path
        return OpenpiResult(
            job.name, job.root, "up to date", path, content, len(self.files), 0, None
        )


def _noting(recipe: Recipe, left_out: object, changed: object) -> Recipe:
    """Put on record what was left out and changed: the next run reports it without reading."""
    noted = {"changed_values": changed, **({"left_out": left_out} if left_out else {})}
    return replace(recipe, parameters={**recipe.parameters, **noted})


def _place(job: OpenpiJob, artifact_root: Path | None) -> Place:
    if job.out is not None:
        return file_place("norm_stats", job.out)
    return dataset_place(
        "norm_stats", open_storage(job.root), dataset=job.name, artifact_root=artifact_root
    )


def _compute(work: _Work) -> _Pass:
    try:
        return _one_pass(work, widest=False)
    except _WiderDtypeError:
        return _one_pass(work, widest=True)


def _one_pass(work: _Work, *, widest: bool) -> _Pass:
    job, storage, done = work.job, work.storage, _Pass()
    for rel, found in read_ahead(storage, work.files, job.columns, threads=work.threads):
        if job.max_frames is not None and done.frames >= job.max_frames:
            break
        try:
            if isinstance(found, DataError):
                raise found
            _take(job, done, found, f"{storage.url}/{rel}", widest=widest)
        except DataError as error:
            if not work.keep_going:
                raise
            where = f"{storage.url}/{rel}"
            done.findings.append(DataFault(UNREADABLE, str(error), where))
    if not done.frames:
        first = done.findings[0].message if done.findings else "no file has a frame"
        raise DataError(f"nothing to compute stats of: {first}", where=job.root)
    for key, each in done.runs.items():
        if each.dropped is not None and each.dropped.any():
            done.findings.append(_dropped(job, key, each.dropped))
    return done


def _dropped(job: OpenpiJob, key: str, dropped: NDArray[np.int64]) -> DataFault:
    dims = tuple(np.flatnonzero(dropped).tolist())
    message = f"{key}: {int(dropped.sum()):,} values are not finite; their frames were left out"
    return DataFault("non_finite", message, job.root, key, dims)


def _take(
    job: OpenpiJob, done: _Pass, found: dict[str, Matrix], where: str, *, widest: bool
) -> None:
    limit = None if job.max_frames is None else job.max_frames - done.frames
    rows = {key: matrix[:limit] for key, matrix in found.items()}
    for key, matrix in rows.items():
        dtype = prepared_dtype(matrix.shape[1], matrix.dtype, job.action_dim)
        if key not in done.runs:
            done.dtypes[key] = np.dtype(np.float64) if widest else dtype
            done.runs[key] = OpenpiAccumulator(
                dtype=done.dtypes[key],
                action_dim=job.action_dim,
                clip_abnormal=job.clip_abnormal,
                numpy1_edges=job.numpy1_edges,
            )
        elif dtype != done.dtypes[key] and dtype == np.float64:
            raise _WiderDtypeError
        width = done.runs[key].width
        if width is not None and width != matrix.shape[1]:
            raise DataError(
                f"{key} is {matrix.shape[1]} wide, {width} in the files before", where=where
            )
    for key, matrix in rows.items():
        done.runs[key].update(matrix)
    done.frames += len(rows["state"])
    done.processed += 1


KEYS = ("state", "actions")
Matrix = NDArray[Any]


def openpi_files(storage: Storage) -> list[str]:
    """Return a folder's parquet files in openpi's order, without those in a `meta` folder."""
    found = sorted(storage.list_files(".", ".parquet"))
    return [rel for rel in found if "meta" not in PurePosixPath(rel).parts[:-1]]


def read_ahead(
    storage: Storage,
    files: Sequence[str],
    columns: Mapping[str, str] | None,
    *,
    threads: int,
) -> Iterator[tuple[str, dict[str, Matrix] | DataError]]:
    """Yield each file and its state and actions, or what is wrong with it, in order.

    Args:
        storage: The folder.
        files: Which of its files.
        columns: `state` and `actions` -> column; None takes those that each file has.
        threads: With two, the next file is read meanwhile.
    """

    def read(rel: str) -> dict[str, Matrix] | DataError:
        try:
            return _read(storage, rel, columns)
        except DataError as error:
            return error

    if threads <= 1:
        yield from ((rel, read(rel)) for rel in files)
        return
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, files[0])
        for rel, after in zip(files, [*files[1:], None], strict=True):
            found = ahead.result()
            if after is not None:
                ahead = pool.submit(read, after)
            yield rel, found


def _read(storage: Storage, rel: str, chosen: Mapping[str, str] | None) -> dict[str, Matrix]:
    where = f"{storage.url}/{rel}"
    file = storage.open_parquet(rel)
    present = file.schema_arrow.names
    columns = dict(chosen) if chosen is not None else default_columns(present)
    missing = [key for key in KEYS if key not in columns]
    if missing:
        raise DataError(
            f"has no column for {' and '.join(missing)} (columns: {', '.join(present)})",
            where=where,
            hint="Name them under `columns` in a config, or in data_features_name_mapping.",
        )
    names = [columns[key] for key in KEYS]
    check_columns(names, present, where)
    table = storage.read_table(rel, names, file=file)
    return {
        key: to_matrix(table.column(columns[key]), f"{where}, column {columns[key]}")
        for key in KEYS
    }
