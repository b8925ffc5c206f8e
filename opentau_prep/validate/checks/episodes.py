"""E: the episodes table, and whether the data files agree with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.metadata.paths import EPISODES_DIR
from opentau_prep.metadata.v2 import EPISODES
from opentau_prep.validate.checks.format import is_aborted
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.rule import NEW, Rule
from opentau_prep.validate.view import relative

if TYPE_CHECKING:
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES"]

LENGTH_FACTOR = 10
_MIN_EPISODES = 5


def _table_file(view: DatasetView) -> str:
    return EPISODES_DIR if view.meta.is_v3 else EPISODES


def episodes_unreadable(view: DatasetView) -> Iterator[Hit]:
    if (fault := view.fault("episodes")) is not None:
        file, message = relative(fault, view.storage.url)
        yield hit(message, fault.hint or "", file=file)


def no_episodes(view: DatasetView) -> Iterator[Hit]:
    if is_aborted(view):
        yield hit(
            "holds no episode: the recording ended before the first one was saved",
            "Remove the dataset from the mixture, and record again: there is nothing to restore.",
        )
    elif view.episodes is not None and not len(view.episodes):
        files = len(view.storage.list_files("data", ".parquet"))
        there = f", but {files:,} data files are there" if files else ", and there is no data"
        yield hit(f"the episodes table is empty{there}", file=_table_file(view))


def length_not_positive(view: DatasetView) -> Iterator[Hit]:
    if view.episodes is not None:
        empty = view.episodes.episode_index[view.episodes.length < 1]
        if len(empty):
            yield hit(
                f"{len(empty):,} episodes have length 0", file=_table_file(view), episodes=empty
            )


def rows_differ(view: DatasetView) -> Iterator[Hit]:
    footers = view.footers
    wrong: list[tuple[int, int, int]] = []
    for part in view.data_parts if footers else ():
        footer = footers.good.get(part.rel) if footers else None
        if footer is None or footer.rows == part.lengths.sum():
            continue
        if part.first_rows is None:
            wrong.append((int(part.episodes[0]), int(part.lengths[0]), footer.rows))
            continue
        yield hit(
            f"holds {footer.rows:,} rows, but its {len(part.episodes):,} episodes have"
            f" {part.lengths.sum():,} frames by the table",
            file=part.rel,
        )
    if wrong:
        words = [f"{e} ({length:,} in the table, {rows:,} on disk)" for e, length, rows in wrong]
        yield hit(
            f"{len(wrong):,} episodes have another number of rows on disk: {listed(words, 5)}",
            file=_table_file(view),
            episodes=[e for e, *_ in wrong],
        )


def index_gaps(view: DatasetView) -> Iterator[Hit]:
    if view.episodes is None or not len(view.episodes):
        return
    index = view.episodes.episode_index
    top = int(index[-1])
    if top < len(index):
        return
    if top > 10 * len(index) + 1000:
        yield hit(f"{len(index):,} episodes are numbered up to {top:,}", file=_table_file(view))
        return
    missing = np.setdiff1d(np.arange(top + 1), index)
    yield hit(
        f"the numbers 0 to {top:,} leave out {len(missing):,}: {listed(missing.tolist())}",
        file=_table_file(view),
    )


def wrong_file(view: DatasetView) -> Iterator[Hit]:
    footers = view.footers
    for part in view.data_parts if footers else ():
        footer = footers.good.get(part.rel) if footers else None
        found = footer.ranges.get("episode_index") if footer else None
        expected = (int(part.episodes.min()), int(part.episodes.max()))
        if found is not None and found != expected:
            yield hit(
                f"holds episodes {_span(found)} by its own column, but {_span(expected)} by the"
                " table",
                file=part.rel,
                column="episode_index",
            )


def _span(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} to {pair[1]}"


def row_ranges_wrong(view: DatasetView) -> Iterator[Hit]:
    ranges, table = view.row_ranges, view.episodes
    if ranges is None or table is None or not len(table):
        return
    widths = ranges[:, 1] - ranges[:, 0] != table.length
    starts = np.concatenate([[0], np.cumsum(table.length)[:-1]])
    for wrong, what in (
        (widths, "dataset_to_index - dataset_from_index is not the length"),
        (~widths & (ranges[:, 0] != starts), "dataset_from_index is not the frames before it"),
    ):
        if wrong.any():
            yield hit(
                f"{what} in {int(wrong.sum()):,} episodes",
                file=EPISODES_DIR,
                episodes=table.episode_index[wrong],
            )


def row_ranges_missing(view: DatasetView) -> Iterator[Hit]:
    if view.episodes is not None and view.meta.is_v3 and view.row_ranges is None:
        yield hit("has no usable dataset_from_index and dataset_to_index", file=EPISODES_DIR)


def length_outlier(view: DatasetView) -> Iterator[Hit]:
    if view.episodes is None or len(view.episodes) < _MIN_EPISODES:
        return
    length = view.episodes.length
    usual = float(np.median(length))
    for wrong, what in (
        ((length > 0) & (length * LENGTH_FACTOR < usual), "shorter"),
        (length > LENGTH_FACTOR * usual, "longer"),
    ):
        if wrong.any():
            found = [int(n) for n in length[wrong]]
            yield hit(
                f"{len(found):,} episodes are over {LENGTH_FACTOR} times {what} than the median of"
                f" {usual:g} frames: {listed(found)} frames",
                file=_table_file(view),
                episodes=view.episodes.episode_index[wrong],
            )


def not_in_file(view: DatasetView) -> Iterator[Hit]:
    for rel, fault in view.frames.unplaced if view.frames else ():
        yield hit(fault.message, fault.hint or "", file=rel)


def duplicate_content(view: DatasetView) -> Iterator[Hit]:
    for episodes in view.frames.duplicates() if view.frames else ():
        yield hit(
            f"episodes {listed(episodes)} hold the same frames, bit for bit",
            episodes=episodes,
            file="data",
        )


def frame_index_wrong(view: DatasetView) -> Iterator[Hit]:
    if view.frames is not None and len(episodes := view.frames.flagged("frame_index")):
        yield hit(
            f"does not count 0, 1, 2, ... in {len(episodes):,} episodes",
            column="frame_index",
            file="data",
            episodes=episodes,
        )


def index_wrong(view: DatasetView) -> Iterator[Hit]:
    scan = view.frames.scalars.get("index") if view.frames else None
    if scan is None or view.episodes is None:
        return
    lengths = view.episodes.length
    starts = dict(
        zip(
            view.episodes.episode_index.tolist(),
            (np.cumsum(lengths) - lengths).tolist(),
            strict=True,
        )
    )
    expected = np.array([starts[int(e)] for e in scan.episodes])
    wrong = scan.episodes[~scan.counts_up | (scan.first != expected)]
    if len(wrong):
        yield hit(
            f"does not count the dataset's frames through in {len(wrong):,} episodes",
            column="index",
            file="data",
            episodes=wrong,
        )


_FROM_SOURCE = "Restore the table from its source, or write it again from the data."
RULES = (
    Rule(
        "E001",
        "episodes-unreadable",
        "error",
        "The episodes table is missing or malformed, or names an episode twice.",
        "Without it no reader knows where an episode begins.",
        _FROM_SOURCE,
        episodes_unreadable,
    ),
    Rule(
        "E002",
        "no-episodes",
        "error",
        "The dataset has no episodes.",
        "There is nothing to train on, and pooling or sampling fails on it.",
        "Remove the dataset from the mixture, or download it whole.",
        no_episodes,
    ),
    Rule(
        "E003",
        "length-not-positive",
        "error",
        "Episodes of length 0 are in the table.",
        "There is no frame to draw from them, and there are no stats to pool.",
        "Remove them from the tables.",
        length_not_positive,
    ),
    Rule(
        "E004",
        "rows-differ",
        "error",
        "The lengths in the table are not the rows on disk.",
        "Frames past the end are asked for, or rows of the next episode are taken for this one's.",
        "Correct the lengths, or download the files again.",
        rows_differ,
    ),
    Rule(
        "E005",
        "index-gaps",
        "warning",
        "Episodes are not numbered 0, 1, 2, ...: some were removed without renumbering.",
        "LeRobot and openpi take an episode's number for its row in the table and read the"
        " wrong one; OpenTau goes by the number.",
        "Renumber the episodes, in tables, file names and columns alike.",
        index_gaps,
    ),
    Rule(
        "E006",
        "wrong-file",
        "error",
        "A data file's own `episode_index` column names other episodes than the table puts there.",
        "OpenTau, LeRobot and openpi go by the column: action chunks are cut at the rows of"
        " another episode.",
        "Rename the file or correct the table; they come from different states of the dataset.",
        wrong_file,
    ),
    Rule(
        "E007",
        "row-ranges-wrong",
        "error",
        "v3.0: `dataset_from_index` and `dataset_to_index` do not follow from the lengths.",
        "LeRobot cuts action chunks at these rows: at those of another episode, silently."
        " OpenTau goes by the lengths.",
        "Write both columns again from the lengths.",
        row_ranges_wrong,
        formats=NEW,
    ),
    Rule(
        "E008",
        "row-ranges-missing",
        "error",
        "v3.0: the episodes table lacks `dataset_from_index` or `dataset_to_index`.",
        "LeRobot raises a KeyError at the first action chunk; OpenTau goes by the lengths.",
        "Write both columns again from the lengths.",
        row_ranges_missing,
        formats=NEW,
    ),
    Rule(
        "E009",
        "length-outlier",
        "warning",
        f"An episode is over {LENGTH_FACTOR} times shorter or longer than the dataset's median (of"
        f" {_MIN_EPISODES} or more episodes). In the published datasets at hand the factor stays"
        " below 1.7.",
        "Mostly a recording that was aborted at once, or never stopped: the policy learns to"
        " stay put, and speed buckets are stretched.",
        "Look at the episodes; list them in excluded_episodes if they are no demonstrations.",
        length_outlier,
    ),
    Rule(
        "E010",
        "not-in-file",
        "error",
        "The file that an episode should lie in has no rows of it, or has them in several places.",
        "Its frames cannot be read as a sequence.",
        "The table and the data do not belong together: restore both from one source.",
        not_in_file,
        "frames",
    ),
    Rule(
        "E011",
        "duplicate-content",
        "warning",
        "Episodes hold the same state and action frames, bit for bit.",
        "They count twice, and one of them may land in validation while the policy trains on the"
        " other.",
        "Keep one of them; list the others in excluded_episodes.",
        duplicate_content,
        "frames",
    ),
    Rule(
        "E012",
        "frame-index-wrong",
        "error",
        "`frame_index` does not count 0, 1, 2, ... within an episode.",
        "Frames were lost or put in another order: action chunks jump.",
        "Write the column again, after checking that no frames are missing.",
        frame_index_wrong,
        "frames",
    ),
    Rule(
        "E013",
        "index-wrong",
        "warning",
        "`index` does not count the frames of the whole dataset through.",
        "LeRobot cuts action chunks around the row that it names: another episode's. OpenTau"
        " and openpi do not read it.",
        "Write the column again.",
        index_wrong,
        "frames",
    ),
)
