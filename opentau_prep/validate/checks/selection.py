"""M: what an entry asks of its dataset: episodes, columns, rates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.errors import PrepError
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.rule import Rule

if TYPE_CHECKING:
    from opentau_prep.metadata.resolve import ResolvedEntry
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES"]

_VECTOR_NAMES = ("state", "actions")
CHUNK_SHARE = 0.5


def _place(entry: ResolvedEntry, field: str) -> str:
    return f"datasets[{entry.index}].{field}"


def episodes_unknown(view: DatasetView) -> Iterator[Hit]:
    for entry in view.named_by if view.episodes is not None else ():
        unknown = [e for e in entry.config.episodes or () if e not in (view.episodes or ())]
        if unknown:
            yield hit(
                f"selects {len(unknown):,} episodes that do not exist (it has"
                f" {len(view.episodes or ()):,})",
                file=_place(entry, "episodes"),
                episodes=sorted(unknown),
            )


def excluded_unknown(view: DatasetView) -> Iterator[Hit]:
    for entry in view.named_by if view.episodes is not None else ():
        excluded = entry.config.excluded_episodes or ()
        unknown = [e for e in excluded if e not in (view.episodes or ())]
        if unknown:
            yield hit(
                f"excludes {len(unknown):,} episodes that do not exist",
                file=_place(entry, "excluded_episodes"),
                episodes=sorted(unknown),
            )


def nothing_left(view: DatasetView) -> Iterator[Hit]:
    for entry in view.named_by if view.episodes is not None and len(view.episodes) else ():
        config = entry.config
        every = view.episodes.episode_index.tolist() if view.episodes else ()
        chosen = set(config.episodes if config.episodes is not None else every)
        if not chosen - set(config.excluded_episodes or ()):
            yield hit("no episode is left after excluded_episodes", file=_place(entry, "episodes"))


def overlap(view: DatasetView) -> Iterator[Hit]:
    for entry in view.named_by:
        both = sorted(set(entry.config.episodes or ()) & set(entry.config.excluded_episodes or ()))
        if both:
            yield hit(
                f"{len(both):,} episodes are both selected and excluded",
                file=_place(entry, "excluded_episodes"),
                episodes=both,
            )


def selected_twice(view: DatasetView) -> Iterator[Hit]:
    if view.episodes is None or len(view.named_by) < 2:
        return
    seen: dict[int, int] = {}
    clashes: dict[tuple[int, int], list[int]] = {}
    for entry in view.named_by:
        config = entry.config
        every = config.episodes if config.episodes is not None else view.episodes.episode_index
        for episode in {int(e) for e in every} - set(config.excluded_episodes or ()):
            if episode in seen:
                clashes.setdefault((seen[episode], entry.index), []).append(episode)
            seen.setdefault(episode, entry.index)
    for (first, second), episodes in clashes.items():
        yield hit(
            f"datasets[{first}] and datasets[{second}] both select {len(episodes):,} episodes",
            file=f"datasets[{second}].episodes",
            episodes=sorted(episodes),
        )


def mapped_column_missing(view: DatasetView) -> Iterator[Hit]:
    for entry in view.named_by if view.features else ():
        mapping = entry.config.data_features_name_mapping or {}
        lost = {
            name: column
            for name, column in mapping.items()
            if name not in _VECTOR_NAMES and column not in (view.features or {})
        }
        if lost:
            words = [f"{name} -> {column!r}" for name, column in lost.items()]
            yield hit(
                f"maps to columns that the dataset does not declare: {listed(words)}",
                file=_place(entry, "data_features_name_mapping"),
            )


def index_out_of_range(view: DatasetView) -> Iterator[Hit]:
    features = view.features or {}
    for entry in view.named_by:
        for field, name in (("state_index", "state"), ("action_index", "actions")):
            index, column = getattr(entry.config, field), view.vectors.get(name)
            if index is None or column is None or not features[column].shape:
                continue
            width = int(np.prod(features[column].shape))
            beyond = [i for i in index if i >= width]
            if beyond:
                yield hit(
                    f"selects {listed(beyond)}, but {column!r} has {width} dims",
                    file=_place(entry, field),
                    column=column,
                    dims=beyond,
                )


def delta_out_of_range(view: DatasetView) -> Iterator[Hit]:
    features = view.features or {}
    for entry in view.named_by:
        pairs = entry.config.delta_action_state_map or {}
        for name, dims in (("actions", list(pairs)), ("state", list(pairs.values()))):
            column = view.vectors.get(name)
            width = int(np.prod(features[column].shape)) if column else 0
            beyond = sorted(d for d in dims if column and width and d >= width)
            if beyond:
                yield hit(
                    f"maps {name} dims {listed(beyond)}, but {column!r} has {width}",
                    file=_place(entry, "delta_action_state_map"),
                    column=column,
                    dims=beyond,
                )


def upsampled(view: DatasetView) -> Iterator[Hit]:
    for entry in view.named_by:
        if view.action_freq is not None and view.fps and view.action_freq > view.fps:
            yield hit(
                f"action_freq is {view.action_freq:g} Hz, the dataset has {view.fps:g} frames"
                " per second",
                file=_place(entry, "action_freq"),
            )


def chunk_too_long(view: DatasetView) -> Iterator[Hit]:
    steps, table = view.options.chunk_size, view.episodes
    if steps is None or table is None or not view.fps or not len(table):
        return
    for entry in view.entries:
        try:
            lengths = table.length[table.positions(entry.episodes)]
        except PrepError:
            continue  # reported by the rules on selections
        seconds = steps / (view.action_freq or view.fps)
        short = lengths < seconds * view.fps
        if len(short) and short.mean() > CHUNK_SHARE:
            yield hit(
                f"a chunk of {steps:,} steps lasts {seconds:.3g} s, longer than"
                f" {int(short.sum()):,} of {len(short):,} selected episodes (median"
                f" {float(np.median(lengths)) / view.fps:.3g} s)",
                file=f"datasets[{entry.index}]" if view.is_of_mixture else None,
            )


RULES = (
    Rule(
        "M017",
        "chunk-too-long",
        "warning",
        f"With `--chunk-size`: an action chunk lasts longer than over {CHUNK_SHARE:.0%} of the"
        " selected episodes.",
        "Every chunk of such an episode runs past its end, and training repeats the last row: most"
        " of what the policy learns to predict is standing still.",
        "Use a shorter chunk, a higher action_freq, or longer episodes.",
        chunk_too_long,
    ),
    Rule(
        "M005",
        "episodes-unknown",
        "error",
        "`episodes` selects episodes that the dataset does not have.",
        "The run stops, or an older state of the dataset was meant.",
        "Correct `episodes`, or update the dataset.",
        episodes_unknown,
    ),
    Rule(
        "M006",
        "selection-empty",
        "error",
        "`episodes` without `excluded_episodes` leaves nothing.",
        "There is nothing to draw from.",
        "Select at least one episode, or remove the entry.",
        nothing_left,
    ),
    Rule(
        "M007",
        "selection-overlap",
        "warning",
        "Episodes are both in `episodes` and in `excluded_episodes`.",
        "They are left out; one of the two lists is not what was meant.",
        "Remove them from one of the lists.",
        overlap,
    ),
    Rule(
        "M008",
        "excluded-unknown",
        "warning",
        "`excluded_episodes` names episodes that do not exist.",
        "It has no effect: the episodes that were meant may be in under other numbers.",
        "Check the numbers.",
        excluded_unknown,
    ),
    Rule(
        "M009",
        "episodes-twice",
        "warning",
        "Two entries select the same episodes of a dataset.",
        "They are drawn twice as often, and may be trained on under one entry and held out under"
        " the other.",
        "Give each entry episodes of its own.",
        selected_twice,
    ),
    Rule(
        "M010",
        "mapped-column-missing",
        "error",
        "`data_features_name_mapping` maps a camera or text to a column that is not declared.",
        "Training stops at the first sample.",
        "Correct the mapping.",
        mapped_column_missing,
    ),
    Rule(
        "M011",
        "index-out-of-range",
        "error",
        "`state_index` or `action_index` selects dims beyond the column's width.",
        "The run stops.",
        "Select dims that exist.",
        index_out_of_range,
    ),
    Rule(
        "M012",
        "delta-out-of-range",
        "error",
        "`delta_action_state_map` maps dims beyond a column's width.",
        "The run stops.",
        "Map dims that exist.",
        delta_out_of_range,
    ),
    Rule(
        "M013",
        "action-freq-above-fps",
        "warning",
        "`action_freq` is higher than the dataset's frame rate.",
        "With `nearest`, chunks repeat frames: the robot is taught to move in steps.",
        "Lower action_freq, or resample with `linear`.",
        upsampled,
    ),
)
