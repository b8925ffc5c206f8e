"""Writes the per-sample losses of one rank as a file that `val-report` reads."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from opentau_prep.artifacts.atomic import write_atomic
from opentau_prep.artifacts.jsonio import dump_foreign_lines
from opentau_prep.errors import ConfigError
from opentau_prep.val_loss.samples import group_cells, loss_values

__all__ = ["write_losses"]


def write_losses(
    path: str | Path,
    *,
    dataset_index: Any,
    dataset: Sequence[str] | NDArray[Any],
    control_mode: Sequence[str | None] | NDArray[Any],
    losses: Mapping[str, Any],
) -> None:
    """Write one rank's samples, whole or not at all, as `.jsonl` or `.parquet` by the suffix.

    Takes what `GroupedLosses.update` takes; reading the file back gives the same result to the last
    bit. Each rank writes a file of its own, such as `losses/rank-3.parquet`, once after the pass: a
    rank without samples writes a file without rows.

    Args:
        path: The file; one that is there is replaced.
        dataset_index: See `GroupedLosses.update`, as for the next three.
        dataset: N mixture-level names.
        control_mode: N control modes or nulls.
        losses: Loss name -> (sums, counts).

    Raises:
        ConfigError: The suffix is another one, or there is no loss.
        DataError: A value is malformed, or values are not parallel.
        ArtifactError: The file cannot be written.
    """
    target = Path(path)
    if target.suffix not in (".jsonl", ".ndjson", ".parquet") or not losses:
        raise ConfigError(
            "a .jsonl or .parquet file and at least one loss are needed", where=str(target)
        )
    of_sample, cells = group_cells(dataset_index, dataset, control_mode)
    rows = np.array([cell.dataset_index for cell in cells], np.int64)
    columns: dict[str, pa.Array] = {
        "dataset_index": pa.array(rows[of_sample], pa.int64()),
        "dataset": pa.array([cells[i].dataset for i in of_sample.tolist()], pa.string()),
        "control_mode": pa.array([cells[i].control_mode for i in of_sample.tolist()], pa.string()),
    }
    for name, values in loss_values(losses, len(of_sample)).items():
        columns[f"{name}_sum"] = pa.array(values.sums, pa.float64())
        columns[f"{name}_count"] = pa.array(values.counts, pa.float64())
    table = pa.table(columns)
    if target.suffix == ".parquet":
        content = _parquet(table)
    else:
        # Bare NaN and texts as they are: a dataset may well be called "NaN".
        content = dump_foreign_lines(table.to_pylist(), where=str(target), allow_non_finite=True)
    write_atomic(target, content)


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()
