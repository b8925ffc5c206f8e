"""What was wrong with a dataset's frames, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from opentau_prep.frames.columns import ColumnError
from opentau_prep.notices import some_names
from opentau_prep.stats.columns import Layout
from opentau_prep.stats.moments import Moments
from opentau_prep.stats.scan import PartFault
from opentau_prep.text import several

__all__ = ["PARTIAL_DATASET", "UNREADABLE", "DataFault", "frame_findings"]

PARTIAL_DATASET = "partial_dataset"
UNREADABLE = "unreadable_file"


@dataclass(frozen=True)
class DataFault:
    """One thing that is wrong.

    Attributes:
        code: `partial_dataset`, `non_finite`, `no_finite_value`, `unreadable_file`,
            `unusable_column`, `missing_column` or `empty_episode`.
        message: In words.
        where: The file, or the dataset's root.
        feature: The feature, when it is about one.
        dims: Its dims.
        episodes: The episodes.
    """

    code: str
    message: str
    where: str
    feature: str | None = None
    dims: tuple[int, ...] = ()
    episodes: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the finding JSON-ready."""
        return {**asdict(self), "dims": list(self.dims), "episodes": list(self.episodes)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> DataFault:
        """Rebuild what `as_json` gave."""
        tuples = {name: tuple(record[name]) for name in ("dims", "episodes")}
        return cls(**{**record, **tuples})


def frame_findings(
    root: str,
    layout: Layout,
    moments: Moments,
    *,
    faults: Sequence[PartFault] = (),
    empty: Sequence[int] = (),
    missing: Sequence[str] = (),
    unusable: Sequence[ColumnError] = (),
) -> tuple[DataFault, ...]:
    """Return what is wrong with the frames, file by file and feature by feature."""
    found = [
        DataFault(UNREADABLE, str(f.error), f"{root}/{f.rel}", episodes=f.episodes) for f in faults
    ]
    if empty:
        message = f"{several(len(empty), 'episode')} without frames: {some_names(empty)}"
        found.append(DataFault("empty_episode", message, root, episodes=tuple(empty)))
    found += [
        DataFault(
            "unusable_column",
            f"{e.column}: {e.where}: {e.message}; it has no stats",
            str(e.where),
            e.column,
        )
        for e in unusable
    ]
    found += [
        DataFault("missing_column", f"info.json declares {name!r}, the data lacks it", root, name)
        for name in missing
    ]
    for name, where in layout.slices.items():
        found += _non_finite(root, name, moments[where])
    return tuple(found)


def _non_finite(root: str, feature: str, moments: Moments) -> list[DataFault]:
    bad = np.flatnonzero(moments.non_finite)
    if not len(bad):
        return []
    counts = {
        "NaN": int(moments.nan.sum()),
        "+Inf": int(moments.pos_inf.sum()),
        "-Inf": int(moments.neg_inf.sum()),
    }
    words = ", ".join(f"{n:,} {kind}" for kind, n in counts.items() if n)
    dims = tuple(bad.tolist())
    message = f"{feature}: {words} in {several(len(dims), 'dim')}; stats are over the finite values"
    found = [DataFault("non_finite", message, root, feature, dims)]
    none = tuple(np.flatnonzero(moments.count == 0).tolist())
    if none:
        message = f"{feature}: no finite value at all in dims {list(none)}"
        found.append(DataFault("no_finite_value", message, root, feature, none))
    return found
