"""openpi's norm stats of a dataset: vectors as wide as the policy's, cleaned, run in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from opentau_prep.errors import ConfigError, DataError
from opentau_prep.stats.histogram import NormStats, RunningStats

__all__ = ["Changed", "OpenpiAccumulator", "norm_stats_record", "prepare_vectors", "prepared_dtype"]

# openpi's: the mean is a running one over such batches, so its bits depend on it.
BATCH_SIZE = 32
_BUFFERED_VALUES = 1 << 20
Floats = NDArray[Any]


def prepared_dtype(width: int, dtype: DTypeLike, action_dim: int | None) -> np.dtype[Any]:
    """Return what `prepare_vectors` gives for vectors of that width and dtype.

    Padding makes float64, and so does anything that is not float32.
    """
    padded = action_dim is not None and width < action_dim
    return np.dtype(np.float32 if np.dtype(dtype) == np.float32 and not padded else np.float64)


@dataclass(frozen=True)
class Changed:
    """How many values of one key were changed on their way into the stats.

    Attributes:
        values: Values as they are in the files.
        zeroed: Those of them that became 0 for lying outside [-pi, pi].
        cut: Those that were cut off.
        padded: Zeros that were added.
    """

    values: int = 0
    zeroed: int = 0
    cut: int = 0
    padded: int = 0

    def __add__(self, other: Changed) -> Changed:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Changed(*(mine + theirs for mine, theirs in pairs))

    @property
    def lost(self) -> float:
        """The share of the files' values that do not enter the stats as they are."""
        return (self.zeroed + self.cut) / max(self.values, 1)

    def as_json(self) -> dict[str, int]:
        """Return the counts JSON-ready."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, int]) -> Changed:
        """Rebuild what `as_json` gave."""
        return cls(**record)


def prepare_vectors(
    matrix: NDArray[Any], *, action_dim: int | None = None, clip_abnormal: bool = False
) -> Floats:
    """Return (N, action_dim) vectors: zero-padded or cut, abnormal values set to 0 on request.

    Args:
        matrix: (N, D) numbers; not changed.
        action_dim: Width of the result; None keeps D.
        clip_abnormal: Whether values outside [-pi, pi] become 0. NaN stays NaN.

    Raises:
        ConfigError: `action_dim` is not positive.

    Source: semantics of kai0's `compute_norm_states_fast.py`: padding before clipping, so that pi
    is rounded to the dtype of the padded data.
    """
    if action_dim is not None and action_dim < 1:
        raise ConfigError(f"action_dim must be at least 1, not {action_dim}")
    rows, width = matrix.shape
    dtype = prepared_dtype(width, matrix.dtype, action_dim)
    if action_dim is not None and width < action_dim:
        out = np.zeros((rows, action_dim), dtype=dtype)
        out[:, :width] = matrix
    else:
        out = matrix[:, :action_dim].astype(dtype)
    if clip_abnormal:
        out[_abnormal(out)] = 0
    return out


def _abnormal(matrix: Floats) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = np.abs(matrix) > matrix.dtype.type(np.pi)
    return mask


class OpenpiAccumulator:
    """Norm stats of one key (state or actions), fed with blocks in the dataset's order.

    Batches run across blocks and files: only the last one may be short. Rows with a value that is
    still not finite after clipping are left out and counted; the reference would turn every stat
    into NaN. Memory: two blocks of about a million values, besides what is passed in.

    Args:
        dtype: float32 or float64 of all prepared data. A dataset whose files disagree must be run
            in float64 throughout: the bits depend on it, so it is decided before the first block.
        action_dim: See `prepare_vectors`.
        clip_abnormal: See `prepare_vectors`.
        numpy1_edges: See `RunningStats`.

    Attributes:
        frames: Rows taken in, those left out included.
        dropped: (D,) int64 values per dim that made a row be left out; None before the first block.
            D is the width kept, and one more when padded.
        changed: How many values were zeroed, cut or added.
    """

    def __init__(
        self,
        *,
        dtype: DTypeLike,
        action_dim: int | None = None,
        clip_abnormal: bool = False,
        numpy1_edges: bool = True,
    ) -> None:
        self._dtype = np.dtype(dtype)
        self._action_dim = action_dim
        self._clip = clip_abnormal
        self._stats = RunningStats(numpy1_edges=numpy1_edges)
        self._waiting: list[Floats] = []
        self._waiting_values = 0
        self._width: int | None = None
        self.frames = 0
        self.changed = Changed()
        self.dropped: NDArray[np.int64] | None = None

    @property
    def width(self) -> int | None:
        """D of the last block; None before the first."""
        return self._width

    def update(self, matrix: NDArray[Any]) -> None:
        """Take in an (N, D) block.

        Raises:
            DataError: Its width, or its dtype after preparation, does not fit what came before.
        """
        wide = matrix.astype(self._dtype, copy=False)
        rows = prepare_vectors(
            wide, action_dim=self._run_dim(matrix.shape[1]), clip_abnormal=self._clip
        )
        kept = matrix.shape[1] if self._action_dim is None else self._action_dim
        zeroed = int(_abnormal(wide[:, :kept]).sum()) if self._clip else 0
        cut, padded = (
            len(matrix) * max(n, 0) for n in (matrix.shape[1] - kept, kept - matrix.shape[1])
        )
        self.changed += Changed(matrix.size, zeroed, cut, padded)
        if rows.dtype != self._dtype:
            raise DataError(
                f"prepared vectors are {rows.dtype}, the run was declared {self._dtype}",
                hint="Pass the dtype that prepared_dtype() gives",
            )
        rows = self._drop_non_finite(rows)
        self._width = matrix.shape[1]
        self.frames += len(matrix)
        self._waiting.append(rows)
        self._waiting_values += rows.size
        if self._waiting_values >= _BUFFERED_VALUES:
            self._run(final=False)

    def finish(self) -> NormStats:
        """Run what is waiting, with a short last batch, and return the stats.

        Raises:
            DataError: Fewer than two vectors were taken in.
        """
        self._run(final=True)
        found = self._stats.get_statistics()
        if self._action_dim is None:
            return found
        dims = np.minimum(np.arange(self._action_dim), len(found.mean) - 1)
        return NormStats(*(values[dims] for values in found.values()))

    def _run_dim(self, width: int) -> int | None:
        """Return how wide to prepare: all zero columns fare alike, so one is enough."""
        return None if self._action_dim is None else min(self._action_dim, width + 1)

    def _drop_non_finite(self, rows: Floats) -> Floats:
        if self.dropped is None:
            self.dropped = np.zeros(rows.shape[1], dtype=np.int64)
        elif rows.shape[1] != len(self.dropped):
            raise DataError(f"vectors of width {rows.shape[1]} after width {len(self.dropped)}")
        # One reduction finds whether there is anything to look for.
        with np.errstate(over="ignore", invalid="ignore"):
            suspect = not np.isfinite(rows.sum(dtype=np.float64))
        if suspect:
            bad = ~np.isfinite(rows)
            self.dropped = self.dropped + bad.sum(axis=0)
            rows = rows[~bad.any(axis=1)]
        return rows

    def _run(self, *, final: bool) -> None:
        waiting = [rows for rows in self._waiting if len(rows)]
        if not waiting:
            return
        rows = np.concatenate(waiting)
        whole = len(rows) if final else len(rows) - len(rows) % BATCH_SIZE
        if whole:
            self._stats.update_many(rows[:whole], BATCH_SIZE)
        self._waiting = [rows[whole:].copy()]
        self._waiting_values = self._waiting[0].size


def norm_stats_record(stats: Mapping[str, NormStats]) -> dict[str, Any]:
    """Return openpi's file content, `{"norm_stats": {key: {"mean": [...], ...}}}`."""
    return {
        "norm_stats": {
            key: {name: values.tolist() for name, values in entry.items()}
            for key, entry in stats.items()
        }
    }
