"""The parquet files of a folder, in the order and with the columns that openpi's stats are of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any

from numpy.typing import NDArray

from opentau_prep.errors import DataError
from opentau_prep.frames.columns import check_columns, to_matrix
from opentau_prep.metadata.features import default_columns
from opentau_prep.storage import Storage

__all__ = ["KEYS", "Matrix", "openpi_files", "read_ahead"]

KEYS = ("state", "actions")
Matrix = NDArray[Any]


def openpi_files(storage: Storage) -> list[str]:
    """Return a folder's parquet files in openpi's order, without those in a `meta` folder."""
    found = sorted(storage.list_files(".", ".parquet"))
    return [rel for rel in found if "meta" not in PurePosixPath(rel).parts[:-1]]


def read_ahead(
    storage: Storage,
    files: Sequence[str],
    columns: Mapping[str, str] | None,
    *,
    threads: int,
) -> Iterator[tuple[str, dict[str, Matrix] | DataError]]:
    """Yield each file and its state and actions, or what is wrong with it, in order.

    Args:
        storage: The folder.
        files: Which of its files.
        columns: `state` and `actions` -> column; None takes those that each file has.
        threads: With two, the next file is read meanwhile.
    """

    def read(rel: str) -> dict[str, Matrix] | DataError:
        try:
            return _read(storage, rel, columns)
        except DataError as error:
            return error

    if threads <= 1:
        yield from ((rel, read(rel)) for rel in files)
        return
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, files[0])
        for rel, after in zip(files, [*files[1:], None], strict=True):
            found = ahead.result()
            if after is not None:
                ahead = pool.submit(read, after)
            yield rel, found


def _read(storage: Storage, rel: str, chosen: Mapping[str, str] | None) -> dict[str, Matrix]:
    where = f"{storage.url}/{rel}"
    file = storage.open_parquet(rel)
    present = file.schema_arrow.names
    columns = dict(chosen) if chosen is not None else default_columns(present)
    missing = [key for key in KEYS if key not in columns]
    if missing:
        raise DataError(
            f"has no column for {' and '.join(missing)} (columns: {', '.join(present)})",
            where=where,
            hint="Name them under `columns` in a config, or in data_features_name_mapping.",
        )
    names = [columns[key] for key in KEYS]
    check_columns(names, present, where)
    table = storage.read_table(rel, names, file=file)
    return {
        key: to_matrix(table.column(columns[key]), f"{where}, column {columns[key]}")
        for key in KEYS
    }
