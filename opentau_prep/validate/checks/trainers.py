"""O: what a trainer cannot open, for the trainers that `--for` names.

Read in OpenTau 0.13 (commit 0b153a9), LeRobot 0.4.4 and 0.6.2 (7427f31) and openpi 15a9616, whose
LeRobot is that of early 2025 (0cf8648).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from opentau_prep.metadata.info import INFO, template_fields
from opentau_prep.metadata.v2 import EPISODES_STATS
from opentau_prep.validate.checks.columns import first_footer
from opentau_prep.validate.checks.counts import true_counts
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.rule import NEW, OLD, RUN_FIX, RUN_STATS, Rule

if TYPE_CHECKING:
    from opentau_prep.validate.view import DatasetView

__all__ = ["BUCKETS", "RULES"]

_FILLED = {
    "data_path": ({"episode_chunk", "episode_index"}, {"chunk_index", "file_index"}),
    "video_path": (
        {"episode_chunk", "episode_index", "video_key"},
        {"chunk_index", "file_index", "video_key"},
    ),
}
LANGUAGE = "language"
BUCKETS = "hf://buckets/"


def episode_stats_missing(view: DatasetView) -> Iterator[Hit]:
    if view.meta.version == "v2.1" and not view.storage.exists(EPISODES_STATS):
        yield hit("is missing", file=EPISODES_STATS)


def path_fields(view: DatasetView) -> Iterator[Hit]:
    info = view.info or {}
    for name, versions in _FILLED.items():
        template = info.get(name)
        if not isinstance(template, str):
            continue
        fields = template_fields(template)
        strange = sorted(fields - versions[view.meta.is_v3])
        if strange:
            filled = ", ".join(f"{{{field}}}" for field in sorted(versions[view.meta.is_v3]))
            yield hit(
                f"{name} asks for {{{listed(strange)}}}; readers of {view.meta.version} fill"
                f" {filled}",
                file=INFO,
                command=RUN_FIX if name in true_counts(view) else (),
            )


def lacking(*names: str) -> Callable[[DatasetView], Iterator[Hit]]:
    """Return a check that the data files have these columns."""

    def check(view: DatasetView) -> Iterator[Hit]:
        first = first_footer(view)
        if first is None:
            return
        file, footer = first
        lost = [name for name in names if name not in footer.types]
        if lost:
            yield hit(f"the data has no column {', '.join(lost)}", file=file)

    return check


def language_columns(view: DatasetView) -> Iterator[Hit]:
    features = view.features or {}
    columns = [name for name, feature in features.items() if feature.dtype == LANGUAGE]
    if columns:
        yield hit(f"{listed(columns)} have the dtype {LANGUAGE!r}", file=INFO)


def language_undeclared(view: DatasetView) -> Iterator[Hit]:
    first = first_footer(view)
    names = [n for n in (first[1].types if first else ()) if n.startswith(f"{LANGUAGE}_")]
    lacking = [n for n in names if n not in (view.features or {})]
    if first is not None and lacking:
        yield hit(f"{listed(lacking)} are in the data and not in features", file=first[0])


def needs_v3(view: DatasetView) -> Iterator[Hit]:
    if not view.meta.is_v3:
        yield hit(f"is {view.meta.version}", file=INFO)


def needs_v2(view: DatasetView) -> Iterator[Hit]:
    if view.meta.is_v3:
        yield hit(f"is {view.meta.version}", file=INFO)


def in_bucket(view: DatasetView) -> Iterator[Hit]:
    if view.dataset.root.startswith(BUCKETS):
        yield hit("is in a storage bucket of the Hugging Face hub, not in a dataset repository")


RULES = (
    Rule(
        "O001",
        "cannot-open-episode-stats",
        "error",
        "v2.1: `meta/episodes_stats.jsonl` is missing. OpenTau 0.13 and openpi pool the dataset's"
        " stats from it when they open the dataset, whatever `stats.json` holds.",
        "The trainer stops at the start, or asks the hub for another copy of the dataset.",
        "Compute the stats: the file is added, nothing is replaced.",
        episode_stats_missing,
        command=RUN_STATS,
        trainers=("opentau", "openpi"),
        formats=("v2.1",),
    ),
    Rule(
        "O002",
        "cannot-open-path",
        "error",
        "`data_path` or `video_path` has a field that readers of its version do not fill, such as"
        " `{chunk_index}` in v2.1.",
        "OpenTau and openpi raise a KeyError when they open the dataset; LeRobot raises it then for"
        " `video_path`, and for `data_path` when it downloads chosen episodes.",
        "Write the template with the fields of its version.",
        path_fields,
        trainers=("opentau", "lerobot", "openpi"),
    ),
    Rule(
        "O003",
        "cannot-open-task-index",
        "error",
        "The data has no `task_index` column.",
        "The instruction of the first frame cannot be looked up.",
        "Write the column: each episode's task in the tasks table.",
        lacking("task_index"),
        trainers=("opentau", "lerobot", "openpi"),
    ),
    Rule(
        "O004",
        "cannot-open-language",
        "error",
        "A feature has LeRobot's dtype `language` (`language_persistent`, `language_events`, which"
        " LeRobot 0.6 writes). OpenTau 0.13, LeRobot 0.4.4 and openpi have no such type.",
        "They raise a ValueError when the dataset is opened; LeRobot 0.6.2 reads it.",
        "Train on a copy without these columns and features.",
        language_columns,
        trainers=("opentau", "openpi"),
    ),
    Rule(
        "O005",
        "cannot-open-version",
        "error",
        "The dataset is v2.0 or v2.1. LeRobot reads v3.0 alone since 0.4.0.",
        "It raises a BackwardCompatibilityError.",
        "Convert a copy with LeRobot's own script (v2.1 to v3.0), then run `stats` on it: the"
        " converter pools quantiles wrongly and drops other files of `meta/`.",
        needs_v3,
        trainers=("lerobot",),
        formats=OLD,
    ),
    Rule(
        "O006",
        "cannot-open-v3",
        "error",
        "The dataset is v3.0. openpi 15a9616 pins a LeRobot that reads v2.0 and v2.1.",
        "It looks for `meta/tasks.jsonl` and `meta/episodes.jsonl`, which v3.0 does not have.",
        "Use a v2.1 copy, or an openpi with a newer LeRobot.",
        needs_v2,
        trainers=("openpi",),
        formats=NEW,
    ),
    Rule(
        "O007",
        "cannot-open-columns",
        "error",
        "The data lacks episode_index or timestamp.",
        "OpenTau and openpi check each episode's timestamps when they open the dataset; LeRobot"
        " finds a frame's episode and its pictures by them.",
        "Write the columns.",
        lacking("episode_index", "timestamp"),
        trainers=("opentau", "lerobot", "openpi"),
    ),
    Rule(
        "O008",
        "cannot-open-language-undeclared",
        "error",
        "The data has language columns that `features` does not declare (LeRobot 0.6.2).",
        "It refuses the dataset and asks for the declaration.",
        "Declare them with dtype `language` and shape (1,).",
        language_undeclared,
        trainers=("lerobot",),
    ),
    Rule(
        "O009",
        "cannot-open-bucket",
        "error",
        "The root is a storage bucket (`hf://buckets/`). OpenTau 0.13, LeRobot 0.4.4 and openpi"
        " know dataset repositories only; LeRobot 0.6.2 streams one (`repo_type: bucket`).",
        "The dataset is looked for under another address, and not found.",
        "Copy the bucket to a folder or a dataset repository, and train on that.",
        in_bucket,
        trainers=("opentau", "openpi"),
    ),
    Rule(
        "O010",
        "cannot-open-index",
        "error",
        "The data has no `index` column.",
        "LeRobot cuts action chunks around the row that it names; OpenTau and openpi count rows.",
        "Write the column: the number of the frame in the dataset.",
        lacking("index"),
        trainers=("lerobot",),
    ),
)
