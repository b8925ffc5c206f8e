"""What a caller passes for a batch of samples, checked and brought to NumPy.

Each sample brings a norm-head row, a dataset name, a control mode and, for each loss, a (sum,
count).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import DataError
from opentau_prep.heads.keys import is_missing_tag

__all__ = [
    "NO_HEAD",
    "Cell",
    "LossValues",
    "check_loss_name",
    "group_cells",
    "loss_values",
    "unmasked",
]

NO_HEAD: Final = -1
_WHERE: Final = "GroupedLosses.update"


@dataclass(frozen=True)
class Cell:
    """Where samples come from, as they say it themselves.

    Attributes:
        dataset: Mixture-level name.
        dataset_index: Norm-head row, or -1 for a dataset without a head.
        control_mode: Stripped; None when training dropped it out of the sample.
    """

    dataset: str
    dataset_index: int
    control_mode: str | None


@dataclass(frozen=True)
class LossValues:
    """One loss of N samples: `sums` and `counts`, (N,) float64."""

    sums: NDArray[np.float64]
    counts: NDArray[np.float64]


def unmasked(control_mode: object) -> str | None:
    """Return the control mode as norm keys spell it (stripped), or None when it says nothing.

    Nothing is said by null, NaN, a blank, or `unknown` in any casing.
    """
    if control_mode is None or (isinstance(control_mode, float) and control_mode != control_mode):
        return None
    text = str(control_mode).strip()
    return None if is_missing_tag(text) else text


def check_loss_name(name: object, where: str) -> str:
    """Return the name, which becomes the last part of a logger key.

    Raises:
        DataError: It is empty, not a string, has a slash, or is `total`.
    """
    if not isinstance(name, str) or not name.strip() or "/" in name or name == "total":
        raise DataError(
            f"loss name {name!r} is not a plain word",
            where=where,
            hint="Use names such as MSE; `total` stands for the weighted total.",
        )
    return name


def group_cells(
    dataset_index: Any, dataset: Any, control_mode: Any
) -> tuple[NDArray[np.int64], list[Cell]]:
    """Return (cell of each sample, (N,) int64; the distinct cells) of parallel per-sample values.

    Raises:
        DataError: Lengths differ, an index is not a whole number, or a name is not a non-empty
            string.
    """
    rows = _head_rows(dataset_index)
    names = _labels(dataset, "dataset", len(rows))
    modes = _labels(control_mode, "control_mode", len(rows))
    codes: dict[tuple[int, Any, Any], int] = {}
    of_sample = [
        codes.setdefault(key, len(codes)) for key in zip(rows.tolist(), names, modes, strict=True)
    ]
    cells = [make_cell(row, name, mode) for row, name, mode in codes]
    return np.asarray(of_sample, dtype=np.int64), cells


def make_cell(dataset_index: int, dataset: object, control_mode: object) -> Cell:
    """Return the cell of one sample.

    Raises:
        DataError: The dataset is not a non-empty string, the control mode neither a string nor
            null, or the norm-head row is below -1.
    """
    if not isinstance(dataset, str) or not dataset.strip():
        raise DataError(f"dataset {dataset!r} is not a non-empty name", where=_WHERE)
    if not (control_mode is None or isinstance(control_mode, (str, float))):
        raise DataError(
            f"control_mode {control_mode!r} is neither a string nor null",
            where=f"{_WHERE} {dataset}",
        )
    if dataset_index < NO_HEAD:
        raise DataError(
            f"dataset_index {dataset_index} is not a norm-head row",
            where=f"{_WHERE} {dataset}",
            hint="Rows count from 0; pass -1 for a dataset without a norm head.",
        )
    return Cell(dataset, dataset_index, unmasked(control_mode))


def loss_values(losses: Mapping[str, Any], n_samples: int) -> dict[str, LossValues]:
    """Return each loss's (sums, counts) as float64 arrays of N samples.

    Raises:
        DataError: A value is not a pair of (N,) real numbers, or a count is negative.
    """
    checked = {}
    for name, pair in losses.items():
        check_loss_name(name, _WHERE)
        where = f"{_WHERE} losses[{name!r}]"
        if (
            isinstance(pair, (str, bytes, Mapping))
            or not hasattr(pair, "__len__")
            or len(pair) != 2
        ):
            raise DataError(
                "not a pair (sums, counts)", where=where, hint="Pass two arrays of shape (N,)."
            )
        sums, counts = (
            _reals(part, n_samples, f"{where} {kind}")
            for part, kind in zip(pair, ("sums", "counts"), strict=True)
        )
        if bool(((counts < 0) & np.isfinite(counts)).any()):
            raise DataError("a count is negative", where=where, hint="Counts weigh the sum: >= 0.")
        checked[name] = LossValues(sums, counts)
    return checked


def _head_rows(dataset_index: Any) -> NDArray[np.int64]:
    rows = _array(dataset_index, f"{_WHERE} dataset_index")
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise DataError(
            f"{rows.dtype} of shape {rows.shape} where integers of shape (N,) are needed",
            where=f"{_WHERE} dataset_index",
        )
    return rows.astype(np.int64)


def _labels(values: Any, name: str, n_samples: int) -> Sequence[Any]:
    where = f"{_WHERE} {name}"
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise DataError(
            f"{values!r} where a list of {n_samples} is needed", where=where, hint="One a sample."
        )
    labels = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if len(labels) != n_samples:
        raise DataError(f"{len(labels)} values for {n_samples} samples", where=where)
    if unusable := [label for label in labels if not isinstance(label, (str, float, type(None)))]:
        raise DataError(f"{unusable[0]!r} is not a string", where=where)
    return labels


def _reals(values: Any, n_samples: int, where: str) -> NDArray[np.float64]:
    array = _array(values, where)
    if array.dtype.kind not in "biuf" and array.size:
        raise DataError(f"{array.dtype} where real numbers are needed", where=where)
    if array.shape != (n_samples,):
        raise DataError(f"shape {array.shape} where ({n_samples},) is needed", where=where)
    return array.astype(np.float64)


def _array(values: Any, where: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        # Torch refuses tensors that need a gradient, live on another device, or are bfloat16.
        raise DataError(
            f"cannot be read as an array ({error})",
            where=where,
            hint="Of a torch tensor, pass `tensor.detach().float().cpu()`.",
        ) from error
