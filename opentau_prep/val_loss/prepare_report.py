"""The verb behind `val-report`: from loss files and a mixture to a report and its files."""

from __future__ import annotations

import glob
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts import Recipe
from opentau_prep.artifacts.fingerprint import cache_left_alone, hash_files
from opentau_prep.artifacts.jsonio import dump_own, load_own
from opentau_prep.artifacts.place import Place, file_place
from opentau_prep.artifacts.rank import main_rank_notices
from opentau_prep.artifacts.store import Inspection, Outcome, inspect
from opentau_prep.errors import ConfigError, DataError
from opentau_prep.val_loss.report import (
    REPORT_SCHEMA_VERSION,
    Change,
    ValidationReport,
    build_report,
    parse_loss_weights,
    read_report,
    worse_than,
)
from opentau_prep.val_loss.sources import MixtureFacts, mixture_sources

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.engine import Failure
    from opentau_prep.metadata.resolve import ResolvedMixture

__all__ = [
    "LossReport",
    "ReportOptions",
    "find_loss_files",
    "inspect_report",
    "prepare_report",
]

COMMAND = "val-report"
SUFFIXES = (".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True)
class ReportOptions:
    """What a report is made of, besides the loss files.

    Attributes:
        loss_weights: Texts such as `MSE=1`, for a weighted `total`.
        earlier: What to compare with: a report of `--out` (one `.json` file), or loss files as
            `find_loss_files` takes them; empty for no comparison.
        fail_if_worse: Percent that a loss may rise; None when any rise is fine.
        out: Where the report is written.
        csv: Where the table is written.
    """

    loss_weights: Sequence[str] = ()
    earlier: Sequence[str | Path] = ()
    fail_if_worse: float | None = None
    out: Path | None = None
    csv: Path | None = None

    def __post_init__(self) -> None:
        limit = self.fail_if_worse
        if limit is None:
            return
        if not (math.isfinite(limit) and limit >= 0):
            raise ConfigError(f"{limit} where a percentage >= 0 is needed", where="--fail-if-worse")
        if not self.earlier:
            raise ConfigError(
                "there is no earlier run to compare with",
                where="--fail-if-worse",
                hint="Name the earlier run with --earlier.",
            )


@dataclass(frozen=True)
class LossReport:
    """A report, where its numbers come from, and what became of its files.

    Attributes:
        report: The report.
        files: The loss files, as they were found.
        weights_from: What weighs the datasets in the aggregate: `mixture`, `held_out_frames` (of a
            mixture whose weights are null), or `samples` (without a mixture).
        worse: The changes for the worse beyond `--fail-if-worse`; None without that option.
        written: What was done with each file that was asked for.
        failures: None: a report without one of the files would be another report.
    """

    report: ValidationReport
    files: Sequence[Path]
    weights_from: str
    worse: Sequence[Change] | None = None
    written: Sequence[Outcome] = ()
    failures: tuple[Failure, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """Return the report and the outcomes, for `artifacts.jsonio.dump_own`."""
        return {
            **self.report.as_json(),
            "files": [str(path) for path in self.files],
            "weights_from": self.weights_from,
            "worse": None if self.worse is None else len(self.worse),
            "written": [{"path": str(o.path), "status": o.status} for o in self.written],
        }


def prepare_report(
    patterns: Sequence[str | Path],
    context: RunContext,
    *,
    resolved: ResolvedMixture | None = None,
    options: ReportOptions | None = None,
) -> LossReport:
    """Return the report on the loss files of a run, and write what was asked for.

    With a mixture, samples must come from its datasets and have its head rows; masked control modes
    are recovered, heads have their names, and mixture weights count in the aggregate. Without one
    there are the groups, and heads by number.

    Args:
        patterns: See `find_loss_files`.
        context: How to run.
        resolved: The mixture that the run was trained on.
        options: The rest.

    Raises:
        ConfigError: An option is malformed, or names a loss that no file has.
        DataError: A file is missing or malformed, or a sample is not of the mixture.
        MetadataError: A tag or an episode table in the mixture is malformed.
        ArtifactError: A file cannot be written, or is somebody else's.
    """
    chosen = options or ReportOptions()
    with main_rank_notices(context.this_rank), cache_left_alone(context.dry_run):
        work = _Work(patterns, resolved, chosen)
        report, written = _write(work, context)
        worse = None
        if chosen.fail_if_worse is not None:
            worse = worse_than(report.changes or (), chosen.fail_if_worse)
    return LossReport(report, work.files, work.weights_from, worse, written)


def inspect_report(
    resolved: ResolvedMixture, path: Path
) -> tuple[Inspection, ValidationReport | None]:
    """Return the state of a report's file against the mixture, and the report.

    The loss files that it was made of are not looked for. A report that was made without a mixture
    fits any.

    Args:
        resolved: The mixture.
        path: The file that `val-report --out` wrote.

    Raises:
        ConfigError: The path is a folder.
        DataError: The file is not a report.
        ArtifactError: It cannot be read.
    """
    place = file_place("validation_report", path, schema_version=REPORT_SCHEMA_VERSION)
    found = inspect(place, Recipe(COMMAND, {}))
    if found.content is None:
        return found, None
    report = read_report(path)
    if found.provenance is None:
        return found, report
    parameters = dict(found.provenance.parameters)
    if parameters.get("mixture") is not None:
        parameters["mixture"] = _known_of(mixture_sources(resolved))
    own = resolved.mixture.mixture_id
    recipe = Recipe(COMMAND, found.provenance.inputs, parameters, mixture_id=own)
    return inspect(place, recipe), report


def find_loss_files(patterns: Sequence[str | Path]) -> list[Path]:
    """Return the files that paths, folders and glob patterns name, in order.

    A folder names the `.jsonl`, `.ndjson` and `.parquet` files in it.

    Raises:
        DataError: One of them names no file.
    """
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            matches = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
        elif path.exists():
            matches = [path]
        else:
            matches = sorted(map(Path, glob.glob(str(pattern), recursive=True)))
        if not matches:
            raise DataError(
                "no loss file there", where=str(pattern), hint=f"Needed: {', '.join(SUFFIXES)}."
            )
        found += matches
    return found


class _Work:
    """One report: its files, what is known of them, and how it is made."""

    def __init__(
        self,
        patterns: Sequence[str | Path],
        resolved: ResolvedMixture | None,
        options: ReportOptions,
    ) -> None:
        self.files = find_loss_files(patterns)
        self.options = options
        self.sources = None if resolved is None else mixture_sources(resolved)
        self.mixture_id = "" if resolved is None else resolved.mixture.mixture_id
        self.loss_weights = parse_loss_weights(options.loss_weights)
        names = [Path(name) for name in options.earlier]
        self.is_report = [name.suffix for name in names] == [".json"]
        self.earlier = names if self.is_report else find_loss_files(names)
        if options.out is not None and options.out.resolve() in [p.resolve() for p in self.earlier]:
            raise ConfigError(
                "is the earlier report, and the file to write too",
                where=str(options.out),
                hint="Name another file with --out.",
            )

    @property
    def weights_from(self) -> str:
        return "samples" if self.sources is None else self.sources.weights_from

    def build(self) -> ValidationReport:
        earlier = None
        if self.is_report:
            earlier = read_report(self.earlier[0]).result
        elif self.earlier:
            earlier = self._report(self.earlier).result
        return self._report(self.files, earlier)

    def recipe(self) -> Recipe:
        inputs: dict[str, Any] = {"loss files": _contents(self.files)}
        if self.earlier:
            inputs["earlier"] = _contents(self.earlier)
        mixture = None if self.sources is None else _known_of(self.sources)
        parameters = {"mixture": mixture, "loss_weights": self.loss_weights}
        return Recipe(COMMAND, inputs, parameters, mixture_id=self.mixture_id)

    def _report(
        self, files: Sequence[Path], earlier: Mapping[str, Any] | None = None
    ) -> ValidationReport:
        return build_report(
            files, sources=self.sources, loss_weights=self.loss_weights, earlier=earlier
        )


def _write(work: _Work, context: RunContext) -> tuple[ValidationReport, list[Outcome]]:
    options, recipe = work.options, work.recipe()
    written: list[Outcome] = []

    def write(place: Place, build: Callable[[], bytes]) -> bytes:
        made = context.ensure_file(place, build, recipe)
        written.append(made.outcome)
        return made.content

    if options.out is None:
        report = work.build()
    else:
        where = str(options.out)
        place = file_place("validation_report", options.out, schema_version=REPORT_SCHEMA_VERSION)
        content = write(place, lambda: dump_own(work.build().as_json()))
        report = ValidationReport.from_json(load_own(content, where=where), where)
    if options.csv is not None:
        place = file_place("validation_table", options.csv, schema_version=REPORT_SCHEMA_VERSION)
        write(place, lambda: report.as_csv().encode())
    return report, written


def _known_of(sources: MixtureFacts) -> dict[str, Any]:
    """Return what a report takes from the mixture, JSON-ready."""
    return {
        "norm_keys": list(sources.norm_keys or ()),
        "rows": dict(sources.dataset_to_norm_index),
        "weights": {name: float(weight) for name, weight in (sources.weights or {}).items()},
        "control_modes": dict(sources.control_modes),
    }


def _contents(files: Sequence[Path]) -> dict[str, Any]:
    """Return the fingerprint of the files' contents, in whatever order and wherever they lie."""
    hashes = [hash_files(path.parent, [path.name])[path.name] for path in files]
    lines = "\n".join(sorted(hashes))
    return {"count": len(hashes), "sha256": hashlib.sha256(lines.encode()).hexdigest()}
