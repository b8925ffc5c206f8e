"""What there is of a dataset's speed percentiles, and whether they are still true."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from opentau_prep.artifacts import Recipe, dataset_place
from opentau_prep.artifacts.store import Inspection, State, inspect
from opentau_prep.metadata.inputs import describe_inputs

if TYPE_CHECKING:
    from opentau_prep.artifacts.place import Place
    from opentau_prep.metadata.resolve import ResolvedEntry

__all__ = ["EPISODES", "KEPT_ROWS", "inspect_speed", "speed_place", "speed_recipe"]

COMMAND = "speed-percentiles"
EPISODES = "episodes"
"""The parameter of a file that was made, on request, of selected episodes alone."""
KEPT_ROWS = "kept_rows"
"""The parameter of a file that holds rows which a recomputation would change."""


def speed_place(entry: ResolvedEntry, artifact_root: Path | None) -> Place:
    """Return where the file of an entry's dataset lies."""
    return dataset_place(
        "speed_percentiles",
        Path(entry.meta.root),
        dataset=entry.artifact_name,
        artifact_root=artifact_root,
    )


def speed_recipe(entry: ResolvedEntry, *, subset: bool, read: bool = True) -> Recipe:
    """Return what the file is made of.

    Args:
        entry: Any entry of the dataset.
        subset: Whether it is made of the entry's selected episodes alone.
        read: Whether data files may be read to hash them.
    """
    parameters = {EPISODES: entry.episodes.tolist()} if subset else {}
    inputs = describe_inputs(entry.meta, read=read)
    return Recipe(COMMAND, inputs=inputs, parameters=parameters, partial=not read)


def inspect_speed(entry: ResolvedEntry, *, artifact_root: Path | None = None) -> Inspection:
    """Return the state of the file of an entry's dataset; reads no frames and changes nothing.

    A file that was made of the very episodes that the entry selects is fresh for it.

    Raises:
        PrepError: The dataset's tables, or the file, cannot be read.
    """
    place = speed_place(entry, artifact_root)
    found = inspect(place, speed_recipe(entry, subset=False, read=False))
    if found.state is State.REPARAMETRIZED and entry.is_subset:
        of_subset = inspect(place, speed_recipe(entry, subset=True, read=False))
        return of_subset if of_subset.fresh else found
    return found
