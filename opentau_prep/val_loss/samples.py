"""What a caller passes for a batch of samples, checked and brought to NumPy.

Each sample brings a norm-head row, its dataset, a control mode and, per loss, a (sum, count).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import DataError
from opentau_prep.heads.keys import is_missing_tag
from opentau_prep.val_loss.exact import LossValues

__all__ = [
    "NO_HEAD",
    "Cell",
    "as_array",
    "check_loss_name",
    "check_parallel",
    "kept_samples",
    "loss_values",
    "make_cell",
    "unmasked",
]

NO_HEAD: Final = -1
_WHERE: Final = "GroupedLosses.update"
_RESERVED: Final = ("total", "Loss")


@dataclass(frozen=True)
class Cell:
    """Where samples come from, according to themselves.

    Attributes:
        dataset: Mixture-level name, or the dataset's place in the mixture.
        dataset_index: Norm-head row, or -1 for a dataset without a head.
        control_mode: Stripped; None when training dropped it out of the sample.
    """

    dataset: str | int
    dataset_index: int
    control_mode: str | None


def unmasked(control_mode: object) -> str | None:
    """Return the control mode as norm keys spell it (stripped), or None when it is missing.

    Null, NaN, a blank, and `unknown` in any casing mean that it is missing.
    """
    if control_mode is None or (isinstance(control_mode, float) and control_mode != control_mode):
        return None
    text = str(control_mode).strip()
    return None if is_missing_tag(text) else text


def check_loss_name(name: object, where: str) -> str:
    """Return the name, which becomes part of a logger key.

    Raises:
        DataError: It is empty, not a string, has a slash, or is reserved for the weighted total.
    """
    if not isinstance(name, str) or not name.strip() or "/" in name or name in _RESERVED:
        raise DataError(
            f"loss name {name!r} is not a plain word",
            where=where,
            hint="Use names such as MSE; `total` and `Loss` are the weighted total.",
        )
    return name


def make_cell(dataset_index: int, dataset: object, control_mode: object) -> Cell:
    """Return the cell of one sample.

    Raises:
        DataError: The dataset is neither a non-empty name nor a place in the mixture, the control
            mode neither a string nor null, or the norm-head row is below -1.
    """
    is_name = isinstance(dataset, str) and bool(dataset.strip())
    is_place = type(dataset) is int and dataset >= 0
    if not (is_name or is_place):
        raise DataError(
            f"dataset {dataset!r} is neither a non-empty name nor a place in the mixture",
            where=_WHERE,
        )
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
    return Cell(dataset, dataset_index, unmasked(control_mode))  # type: ignore[arg-type]


def check_parallel(
    dataset_index: Any, dataset: Any, control_mode: Any
) -> list[tuple[int, str | int, Any]]:
    """Return the N samples' (norm-head row, dataset, control mode), after checking all of them.

    Raises:
        DataError: Lengths differ, a row is not a whole number, or datasets are not all names or
            all whole numbers.
    """
    rows = as_array(dataset_index, f"{_WHERE} dataset_index")
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise DataError(
            f"{rows.dtype} of shape {rows.shape} where integers of shape (N,) are needed",
            where=f"{_WHERE} dataset_index",
        )
    names = _labels(dataset, "dataset", len(rows))
    kinds = {type(name) for name in names}
    if len(kinds & {str, int}) == 2:
        raise DataError("names and places in the mixture are mixed", where=f"{_WHERE} dataset")
    if control_mode is None:
        modes: Sequence[Any] = [None] * len(rows)
    else:
        modes = _labels(control_mode, "control_mode", len(rows))
    return list(zip(rows.tolist(), names, modes, strict=True))


def loss_values(losses: Mapping[str, Any], n_samples: int) -> dict[str, LossValues]:
    """Return each loss's (sums, counts) as float64 arrays of N samples, copied.

    Raises:
        DataError: A value is not a pair of (N,) real numbers, or a count is negative.
    """
    checked = {}
    for name, pair in losses.items():
        check_loss_name(name, _WHERE)
        if (
            isinstance(pair, (str, bytes, Mapping))
            or not hasattr(pair, "__len__")
            or len(pair) != 2
        ):
            raise DataError(
                "not a pair (sums, counts)",
                where=f"{_WHERE} losses[{name!r}]",
                hint="Pass two arrays of shape (N,).",
            )
        sums = _reals(pair[0], n_samples, name, "sums")
        counts = _reals(pair[1], n_samples, name, "counts")
        negative = counts < 0
        if negative.any() and np.isfinite(counts[negative]).any():
            raise DataError(
                "a count is negative",
                where=f"{_WHERE} losses[{name!r}]",
                hint="Counts weigh the sum: >= 0.",
            )
        checked[name] = LossValues(sums, counts)
    return checked


def kept_samples(weights: Any, n_samples: int) -> NDArray[np.bool_] | None:
    """Return which samples count, (N,) bool; None when all of them do.

    Raises:
        DataError: A weight is neither 0 nor 1, or there are not N of them.
    """
    if weights is None:
        return None
    array = as_array(weights, f"{_WHERE} weights")
    kept = array != 0
    if array.shape != (n_samples,) or not (kept == array).all():
        raise DataError(
            f"shape {array.shape} where {n_samples} weights of 0 or 1 are needed",
            where=f"{_WHERE} weights",
            hint="Pass the plan's: `for batch, weights in zip(loader, plan.weights(rank))`.",
        )
    return None if kept.all() else kept


def as_array(values: Any, where: str) -> NDArray[Any]:
    """Return the values as an array; torch tensors of any device and dtype are brought over.

    Raises:
        DataError: They are not an array.
    """
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        # A tensor on another device, in a dtype that NumPy lacks, or one that needs a gradient.
        if hasattr(values, "detach"):
            return np.asarray(values.detach().double().cpu())
        raise DataError(
            f"cannot be read as an array ({error})", where=where, hint="Pass numbers of shape (N,)."
        ) from error


def _labels(values: Any, name: str, n_samples: int) -> list[Any]:
    where = f"{_WHERE} {name}"
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise DataError(
            f"{values!r} where a list of {n_samples} is needed", where=where, hint="One per sample."
        )
    labels = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(labels) != n_samples:
        raise DataError(f"{len(labels)} values for {n_samples} samples", where=where)
    wanted = (str, int) if name == "dataset" else (str, float, type(None))
    if unusable := [v for v in labels if not isinstance(v, wanted) or isinstance(v, bool)]:
        raise DataError(f"{unusable[0]!r} is not a string", where=where)
    return labels


def _reals(values: Any, n_samples: int, name: str, kind: str) -> NDArray[np.float64]:
    array = as_array(values, f"{_WHERE} losses[{name!r}] {kind}")
    if array.shape != (n_samples,) or (array.dtype.kind not in "biuf" and array.size):
        raise DataError(
            f"{array.dtype} of shape {array.shape} where {n_samples} real numbers are needed",
            where=f"{_WHERE} losses[{name!r}] {kind}",
        )
    return array.astype(np.float64)
