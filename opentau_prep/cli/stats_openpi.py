"""`opentau-prep stats --format openpi` and `--format kai0`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from opentau_prep.cli.command import Result
from opentau_prep.cli.given import given_by
from opentau_prep.cli.tables import Render, failures_text, table
from opentau_prep.config.names import make_dataset_names
from opentau_prep.engine import Failure
from opentau_prep.errors import ConfigError, PrepError
from opentau_prep.notices import some_names

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.cli.session import Session
    from opentau_prep.cli.stats import NormStatsFlags
    from opentau_prep.config.norm_stats import NormStatsConfig, TrainingConfig
    from opentau_prep.metadata.dataset import Dataset
    from opentau_prep.stats.openpi_report import OpenpiReport, OpenpiResult
    from opentau_prep.stats.openpi_run import OpenpiJob

__all__ = ["run_openpi"]

MAX_LINES = 20
KAI0_ACTION_DIM = 32


def run_openpi(
    session: Session,
    roots: list[str] | None,
    mixture_json: Path | None,
    flags: NormStatsFlags,
    format: str | None,
) -> Result:
    """Compute openpi's stats of what was named: roots, a mixture, a folder, or a config.

    Args:
        session: The command's session.
        roots: Dataset folders.
        mixture_json: A mixture.
        flags: The options of these formats.
        format: `openpi`, `kai0`, or None: kai0 for a TrainConfig, else openpi.

    Raises:
        ConfigError: More than one of them was named, or none; or several datasets with one --out.
    """
    from opentau_prep.stats.openpi_run import prepare_openpi

    named = {
        "dataset roots": roots or None,
        "--mixture-json": mixture_json,
        # A config's folder can be replaced; anything else names the data once.
        "--base-dir": None if flags.config_name else flags.base_dir,
        "--config-name": flags.config_name,
    }
    chosen = [name for name, value in named.items() if value is not None]
    if len(chosen) != 1:
        raise ConfigError(
            f"name the data in one way, found {', '.join(chosen) or 'none'}",
            hint="One of: dataset roots, --mixture-json, --base-dir, --config-name.",
        )
    found, lost = _jobs(session, roots, mixture_json, flags, format)
    jobs = [_as_kai0(job) for job in found] if format == "kai0" else found
    over = given_by(replace(flags, config_name=None, base_dir=None))
    jobs = [replace(job, **over) for job in jobs]
    if session.context.engine_address is not None:
        jobs = [_absolute(job) for job in jobs]
    if flags.out is not None and len(jobs) + len(lost) > 1:
        raise ConfigError(
            f"--out names one file for {len(jobs) + len(lost)} datasets", where="--out"
        )
    report = prepare_openpi(jobs, session.context, lost=lost)
    failed = report.needs_attention
    return Result(report.as_json(), openpi_table(report), exit_code=1 if failed else 0)


def _absolute(job: OpenpiJob) -> OpenpiJob:
    """Return a job as the workers of a cluster can do it, wherever they are."""
    root = job.root if "://" in job.root else str(Path(job.root).absolute())
    return replace(job, root=root, out=job.out and job.out.absolute())


def _jobs(
    session: Session,
    roots: list[str] | None,
    mixture_json: Path | None,
    flags: NormStatsFlags,
    format: str | None,
) -> tuple[list[OpenpiJob], Sequence[Failure]]:
    """Return what to compute, and what cannot be opened, where that is no reason to stop."""
    from opentau_prep.config.norm_stats import load_norm_stats_config, load_training_config

    if flags.config_name is not None:
        training = load_training_config(flags.config_name)
        if training is not None:
            job = _training_job(session, training, flags.base_dir)
            return [job if format == "openpi" else _as_kai0(job)], []
        config = load_norm_stats_config(flags.config_name)
        return [_config_job(session, config, flags.base_dir)], []
    if flags.base_dir is not None:
        return [_folder_job(flags.base_dir)], []
    bare = list(dict.fromkeys(root for root in roots or () if _is_bare(Path(root))))
    jobs = [_folder_job(Path(root)) for root in bare]
    # As for datasets: folders called alike must not share a place below --artifact-root.
    names = make_dataset_names([job.name for job in jobs])
    jobs = [replace(job, name=name) for job, name in zip(jobs, names, strict=True)]
    others = [root for root in roots or () if root not in bare]
    if bare and not others:
        return jobs, []
    try:
        more, lost = _dataset_jobs(session, others or None, mixture_json)
    except PrepError as error:
        if not (jobs and session.context.keep_going):
            raise
        return jobs, [Failure(some_names(others), error)]
    return [*jobs, *more], lost


def _is_bare(folder: Path) -> bool:
    return folder.is_dir() and not Path(folder, "meta/info.json").is_file()


def _dataset_jobs(
    session: Session, roots: list[str] | None, mixture_json: Path | None
) -> tuple[list[OpenpiJob], Sequence[Failure]]:
    from opentau_prep.cli.targets import load_targets
    from opentau_prep.metadata.resolve import warn_vqa
    from opentau_prep.stats.openpi_run import OpenpiJob

    resolved = load_targets(roots, mixture_json, session.context, frames=True, one_by_one=True)
    warn_vqa(resolved.vqa)
    jobs: dict[Dataset, OpenpiJob] = {}
    lost = list(resolved.faults)
    for entry in resolved.entries:
        try:
            mapped = entry.name_map.columns
        except PrepError as error:
            if not session.context.keep_going:
                raise
            lost.append(Failure(entry.name, error))
            continue
        columns = {key: mapped[key] for key in ("state", "actions") if key in mapped}
        full = columns if len(columns) == 2 else None
        job = OpenpiJob(entry.artifact_name, entry.dataset.root, full)
        jobs.setdefault(entry.dataset, job)
    return list(jobs.values()), lost


def _folder_job(folder: Path) -> OpenpiJob:
    from opentau_prep.stats.openpi_run import OpenpiJob

    if not folder.is_dir():
        raise ConfigError("is not a folder", where=str(folder))
    return OpenpiJob(folder.resolve().name, str(folder))


def _as_kai0(job: OpenpiJob) -> OpenpiJob:
    """Return the job as kai0's script does it: it skips what it cannot use."""
    dim = KAI0_ACTION_DIM if job.action_dim is None else job.action_dim
    return replace(job, action_dim=dim, clip_abnormal=True, skip_unusable=True)


def _training_job(session: Session, config: TrainingConfig, folder: Path | None) -> OpenpiJob:
    if folder is None:
        if config.repo_id is None:
            raise ConfigError(
                "the config names no dataset", where="--config-name", hint="Name --base-dir DIR."
            )
        folder = _located(session, config.repo_id)
    return replace(_folder_job(folder), action_dim=config.action_dim, out=config.output)


def _located(session: Session, repo_id: str) -> Path:
    """Return the folder of a dataset: for kai0 `repo_id` is its path."""
    from opentau_prep.metadata.locate import LocateOptions, locate_dataset

    if Path(repo_id).is_dir():
        return Path(repo_id)
    if Path(repo_id).is_absolute():
        raise ConfigError(
            "the config's repo_id is not a folder", where=repo_id, hint="Name --base-dir DIR."
        )
    options = LocateOptions.of_run(session.context, frames=True)
    return Path(locate_dataset(repo_id=repo_id, root=None, options=options))


def _config_job(session: Session, config: NormStatsConfig, base_dir: Path | None) -> OpenpiJob:
    folder = base_dir or config.folder()
    if folder is None:
        root = _located(session, str(config.repo_id))
        job = replace(_folder_job(root), name=str(config.repo_id))
    else:
        job = _folder_job(folder)
    return replace(
        job,
        columns=None if config.columns is None else config.columns.as_dict(),
        action_dim=config.action_dim,
        max_frames=config.max_frames,
        clip_abnormal=bool(config.clip_abnormal),
        numpy1_edges=config.numpy1_edges,
        out=None if config.output is None else Path(config.output),
    )


_COLUMNS = (
    *("dataset", "#files read", "#frames", "#dims", "#zeroed", "#cut", "#padded"),
    *("status", "file"),
)


def _share(result: OpenpiResult, what: str) -> str:
    """Return the share of values that were changed in one way, all keys together.

    Of the values in the files, but for padding: of those in the padded vectors.
    """
    changed = result.changed.values()
    values = sum(c.values + (c.padded - c.cut if what == "padded" else 0) for c in changed)
    return f"{sum(getattr(c, what) for c in changed) / max(values, 1):.1%}"


def openpi_table(report: OpenpiReport) -> Render:
    """Return what draws the outcome."""

    def render(console: Console) -> None:
        rows = [
            (
                r.name,
                f"{r.files_processed:,} of {r.files_found:,}",
                "-" if r.frames is None else r.frames,
                len(r.norm_stats["actions"]["mean"]),
                *(_share(r, what) for what in ("zeroed", "cut", "padded")),
                r.status,
                r.path,
            )
            for r in report.results
        ]
        console.print(table(_COLUMNS, rows))
        for result in report.results:
            lines = [f"{f.code}: {f.message}" for f in result.findings]
            lines += [f"{result.path}: {line}" for line in result.differences]
            for line in lines[:MAX_LINES]:
                console.print(line, markup=False)
            if len(lines) > MAX_LINES:
                console.print(f"... and {len(lines) - MAX_LINES:,} more (--json lists all)")
            for key, changed in result.lost.items():
                console.print(
                    f"{result.name}: {changed.lost:.1%} of the values of {key} were zeroed or cut"
                    f" ({changed.zeroed:,} outside [-pi, pi], {changed.cut:,} beyond the width):"
                    " the stats are not the data's.",
                    markup=False,
                )
            if any(c.zeroed for c in result.lost.values()):
                console.print("Values that are not radians: use --format openpi, which keeps them.")
            if result.status == "differs":
                console.print("It was left alone; --force replaces it and keeps a backup.")
        failures_text(console, report.failures)

    return render
