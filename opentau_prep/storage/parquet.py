"""What reading parquet has in common, wherever the bytes come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from opentau_prep.errors import PrepError
from opentau_prep.storage.base import storage_error

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["LFS_MAGIC", "ParquetReads", "parquet_fault"]

LFS_MAGIC = b"version https://git-lfs"


class ParquetReads(ABC):
    """The half of a `Storage` that reads files which are open."""

    @abstractmethod
    def open_parquet(self, rel: str) -> pq.ParquetFile:
        """See `Storage.open_parquet`."""

    @abstractmethod
    def _parquet_error(self, rel: str, error: Exception) -> PrepError:
        """Return what to say of a file that Arrow cannot read."""

    def column_names(self, rel: str, file: pq.ParquetFile) -> list[str]:
        """See `Storage.column_names`."""
        import pyarrow as pa

        try:
            names: list[str] = file.schema_arrow.names
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise self._parquet_error(rel, error) from error
        return names

    def read_table(
        self,
        rel: str,
        columns: Sequence[str] | None = None,
        *,
        row_groups: Sequence[int] | None = None,
        file: pq.ParquetFile | None = None,
    ) -> pa.Table:
        """See `Storage.read_table`."""
        import pyarrow as pa

        file = file or self.open_parquet(rel)
        names = None if columns is None else list(columns)
        try:
            if row_groups is None:
                return file.read(columns=names, use_threads=False)
            return file.read_row_groups(list(row_groups), columns=names, use_threads=False)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise self._parquet_error(rel, error) from error


def parquet_fault(rel: str, where: str, size: int, head: bytes, error: Exception) -> PrepError:
    """Return what is wrong with a file that is there, but not whole parquet.

    Args:
        rel: The file, relative to the root.
        where: The file, as it is shown.
        size: Its size in bytes.
        head: Its first bytes, as many as `LFS_MAGIC` has.
        error: What Arrow reported.
    """
    if head == LFS_MAGIC:
        return storage_error(
            rel,
            f"is a Git LFS pointer ({size} bytes of text), not the parquet file",
            where=where,
            hint="Run `git lfs pull` in the dataset, or download it from the hub.",
        )
    what = "is empty" if size == 0 else f"is not a whole parquet file ({size:,} bytes)"
    if head[:4] == b"PAR1":
        what = f"is a truncated or damaged parquet file ({size:,} bytes)"
        if "lists to be of size" in str(error):
            # pyarrow before 26 cannot read a null among lists of a fixed size.
            what = "has null rows in a list column"
    return storage_error(rel, what, where=where, hint="Download or write it again.")
