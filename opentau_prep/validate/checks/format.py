"""F: info.json and the data files it leads to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from opentau_prep.errors import PrepError
from opentau_prep.metadata.frames_format import other_storage
from opentau_prep.metadata.info import INFO, as_integer, parse_version
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.rule import GIT_LFS_PULL, Rule
from opentau_prep.validate.view import relative

if TYPE_CHECKING:
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES", "git_lfs_pull", "is_aborted", "only_cause"]

_COUNTERS = ("total_episodes", "total_frames", "total_tasks", "chunks_size")
_TAGS = ("robot_type", "control_mode")


def info_unreadable(view: DatasetView) -> Iterator[Hit]:
    if (fault := view.fault("info")) is not None:
        file, message = relative(fault, view.storage.url)
        yield hit(message, fault.hint or "", file=file, command=git_lfs_pull(view, fault))


def git_lfs_pull(view: DatasetView, fault: PrepError) -> tuple[str, ...]:
    """Return the command that fetches what Git LFS left out; none outside of a git checkout."""
    folder = view.storage.folder
    if folder is None or "Git LFS pointer" not in fault.message:
        return ()
    folder = folder.resolve()
    in_git = any((parent / ".git").exists() for parent in (folder, *folder.parents))
    return GIT_LFS_PULL if in_git else ()


def version_missing(view: DatasetView) -> Iterator[Hit]:
    if view.info is None:
        return
    if parse_version(view.info) not in ((2, 0), (2, 1), (3, 0)):
        declared = view.info.get("codebase_version")
        what = "is missing" if declared is None else f"is {declared!r}"[:80]
        yield hit(
            f"codebase_version {what}; the files look like {view.meta.version}'s and are read so",
            f'Write "codebase_version": "{view.meta.version}" once you are sure.',
            file=INFO,
        )


def storage_other(view: DatasetView) -> Iterator[Hit]:
    storage = None if view.info is None else _other_storage(view)
    if storage is not None:
        yield hit(f"frames are stored as {storage[:40]!r}, not as parquet files", file=INFO)


def version_mismatch(view: DatasetView) -> Iterator[Hit]:
    if view.info is None or parse_version(view.info) not in ((2, 0), (2, 1), (3, 0)):
        return
    if any(notice.kind == "version_mismatch" for notice in view.notices):
        declared = view.info.get("codebase_version")
        yield hit(
            f"codebase_version is {declared!r}, but the files are those of {view.meta.version}",
            file=INFO,
        )


def data_path_unusable(view: DatasetView) -> Iterator[Hit]:
    if (fault := view.fault("data_paths")) is not None:
        file, message = relative(fault, view.storage.url)
        yield hit(message, fault.hint or "", file=file)


def data_path_misnamed(view: DatasetView) -> Iterator[Hit]:
    if view.info is None or view.data_paths is None:
        return
    template = view.info.get("data_path")
    if template is None:
        yield hit("has no data_path; LeRobot's default for this version is used", file=INFO)
    elif any(notice.kind == "data_path_mismatch" for notice in view.notices):
        yield hit(f"data_path {template!r} leads to no file; LeRobot's default does", file=INFO)


def files_missing(view: DatasetView) -> Iterator[Hit]:
    if view.footers is not None and view.footers.missing and view.data_paths is not None:
        missing = set(view.footers.missing)
        table = view.episodes
        episodes = [
            e
            for e, rel in zip(table.episode_index if table else (), view.data_paths, strict=False)
            if rel in missing
        ]
        total = len(view.footers.missing) + len(view.footers.good) + len(view.footers.broken)
        yield hit(
            f"{len(missing):,} of {total:,} data files are missing:"
            f" {listed(view.footers.missing, 3)}",
            file="data",
            episodes=episodes,
        )


def files_unreadable(view: DatasetView) -> Iterator[Hit]:
    for rel, fault in (view.footers.broken if view.footers else {}).items():
        yield hit(fault.message, fault.hint or "", file=rel, command=git_lfs_pull(view, fault))


def files_unclaimed(view: DatasetView) -> Iterator[Hit]:
    if view.data_paths is None:
        return
    known = set(view.data_paths)
    extra = [rel for rel in view.storage.list_files("data", ".parquet") if rel not in known]
    if extra:
        yield hit(
            f"{len(extra):,} data files belong to no episode of the table: {listed(extra, 3)}",
            file="data",
        )


def fps_invalid(view: DatasetView) -> Iterator[Hit]:
    if (fault := view.fault("fps")) is not None:
        yield hit(fault.message, fault.hint or "", file=INFO)
    elif view.fps is not None and not 1 <= view.fps <= 1000:
        yield hit(
            f"fps is {view.fps:g}: robots are recorded at 1 to 1,000 frames per second", file=INFO
        )


def field_type(view: DatasetView) -> Iterator[Hit]:
    for name in _COUNTERS:
        value = (view.info or {}).get(name, 1)
        number = as_integer(value)
        if number is None or number < (1 if name == "chunks_size" else 0):
            yield hit(f"{name} is {value!r}, not a whole number"[:120], file=INFO)
    for name in _TAGS:
        value = (view.info or {}).get(name)
        if value is not None and not isinstance(value, str):
            yield hit(f"{name} is {value!r}, not a string"[:120], file=INFO)


def only_cause(view: DatasetView) -> str | None:
    """Return the code of the rule that alone applies to a dataset; None when all of them do."""
    if view.info is None:
        return "F001"
    if _other_storage(view) is not None:
        return "F017"
    if view.episodes is not None and not len(view.episodes):
        return "E002"
    return "E002" if is_aborted(view) else None


def _other_storage(view: DatasetView) -> str | None:
    _ = view.data_paths  # what is noticed on the way is the view's
    return other_storage(view.meta)


def is_aborted(view: DatasetView) -> bool:
    """Tell whether a recorder wrote info.json and ended before it saved an episode."""
    if view.info is None or view.episodes is not None:
        return False
    if as_integer(view.info.get("total_episodes", 0)) != 0:
        return False
    try:
        return not view.storage.list_files("data", ".parquet")
    except PrepError:
        return False


_FROM_SOURCE = "Restore the file from its source, or download the dataset again."
RULES = (
    Rule(
        "F001",
        "info-unreadable",
        "error",
        "`meta/info.json` is missing, is not a JSON object, is a Git LFS pointer, or is that of"
        " another program.",
        "Everything else is found through it: no reader can open the dataset.",
        _FROM_SOURCE,
        info_unreadable,
    ),
    Rule(
        "F002",
        "version-unknown",
        "error",
        "`codebase_version` is missing or is none of v2.0, v2.1 and v3.0: that of a fork, or one"
        " written by hand.",
        "OpenTau, LeRobot and openpi stop, or look for the files of another version; this"
        " toolkit goes by the files.",
        "Write the version that the files have.",
        version_missing,
    ),
    Rule(
        "F003",
        "version-mismatch",
        "error",
        "`codebase_version` names one layout and the files have another, such as a v3.0 info.json"
        " over one file per episode.",
        "OpenTau, LeRobot and openpi look for the tables of the version that is named, which"
        " are not there.",
        "Correct codebase_version, or finish the conversion that was begun.",
        version_mismatch,
    ),
    Rule(
        "F017",
        "storage-format",
        "error",
        "Frames are not parquet files but another storage, such as Lance (`storage_format` in"
        " info.json, or a `frames.lance` table), which needs a LeRobot with a backend for it.",
        "Nothing is missing and nothing is damaged, but neither this toolkit nor OpenTau,"
        " LeRobot 0.4.4 or openpi reads it: no stats can be computed or checked.",
        "Export the dataset as parquet with the tool that wrote it, and use that copy; remove no"
        " episode.",
        storage_other,
    ),
    Rule(
        "F004",
        "data-path-unusable",
        "error",
        "`data_path` is not a template, has fields that this version does not know, leads out of"
        " the dataset, or needs columns that the episodes table lacks.",
        "OpenTau and openpi find no frame; LeRobot reads every file under `data/`, and fails"
        " when it appends or downloads.",
        "Write LeRobot's default template for the version.",
        data_path_unusable,
    ),
    Rule(
        "F005",
        "data-path-misnamed",
        "error",
        "`data_path` is missing, or leads to no file although the default does.",
        "This toolkit reads on, and LeRobot reads every file under `data/`; OpenTau and openpi"
        " stop with a KeyError or a missing file.",
        "Write the template that the files follow.",
        data_path_misnamed,
    ),
    Rule(
        "F006",
        "data-file-missing",
        "error",
        "Data files of episodes in the table are not there.",
        "OpenTau, LeRobot and openpi look for every file when they open the dataset: they ask"
        " the hub for it, or stop.",
        "Download them again, or remove the episodes from the tables.",
        files_missing,
    ),
    Rule(
        "F007",
        "data-file-unreadable",
        "error",
        "A data file is a Git LFS pointer, is cut off, or is not parquet.",
        "OpenTau, LeRobot and openpi read every file when they open the dataset, and stop there.",
        "Run `git lfs pull`, or download the file again.",
        files_unreadable,
    ),
    Rule(
        "F008",
        "data-file-unclaimed",
        "warning",
        "There are data files that no episode of the table leads to.",
        "Recorded episodes stay unused, or the table belongs to an older state of the data."
        " LeRobot and openpi read every file under `data/`: rows after such a file have other"
        " numbers than in the table.",
        "Add their episodes to the tables, or remove the files.",
        files_unclaimed,
    ),
    Rule(
        "F014",
        "fps-invalid",
        "error",
        "`fps` is missing, not a positive number, or outside 1 to 1,000.",
        "Action chunks and timestamps are counted in it: nothing can be sampled.",
        "Write the recording's frame rate (Hz).",
        fps_invalid,
    ),
    Rule(
        "F015",
        "field-type",
        "error",
        "A field of info.json has the wrong type: counts and `chunks_size` are whole numbers,"
        " `robot_type` and `control_mode` strings or null.",
        "Code that counts with the field fails, or compares what is not comparable.",
        "Correct the field.",
        field_type,
    ),
)
