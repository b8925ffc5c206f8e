"""Arrays out of a safetensors file, with NumPy alone: only those that are asked for are read.

The format: eight bytes (length of the header, little endian), a JSON header
`name -> {dtype, shape, data_offsets}`, and the numbers, row-major and little endian.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import MetadataError

__all__ = ["read_safetensors"]

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "<i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "<u1",
}  # fmt: skip
_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 100_000_000  # the bound of the format's own library


def read_safetensors(
    path: Path, wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, NDArray[np.float64]]:
    """Return name -> array, float64, of the tensors that `wanted` chooses.

    Args:
        path: The file.
        wanted: Called with the name of a tensor; whether to read it.

    Raises:
        MetadataError: The file cannot be read, or is not what it should be.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header, start = _header(file, size, path)
            names = [name for name in header if name != "__metadata__" and wanted(name)]
            return {name: _tensor(file, name, header[name], start, size, path) for name in names}
    except OSError as error:
        raise MetadataError(f"cannot be read ({error.strerror})", where=str(path)) from error


def _header(file: BinaryIO, size: int, path: Path) -> tuple[dict[str, Any], int]:
    first = file.read(_LENGTH.size)
    length = _LENGTH.unpack(first)[0] if len(first) == _LENGTH.size else 0
    if not 2 <= length <= min(size - _LENGTH.size, _LONGEST_HEADER):
        raise _damaged(path, "its header is cut short")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    return header, _LENGTH.size + length


def _tensor(
    file: BinaryIO, name: str, entry: Any, start: int, size: int, path: Path
) -> NDArray[np.float64]:
    try:
        kind, shape = entry["dtype"], tuple(int(n) for n in entry["shape"])
        first, last = (int(offset) for offset in entry["data_offsets"])
        dtype = np.dtype(_DTYPES[kind])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"tensor {name!r} is not described properly") from error
    count = int(np.prod(shape, dtype=object)) if min(shape, default=1) >= 0 else -1
    if first < 0 or last - first != count * dtype.itemsize or start + last > size:
        raise _damaged(path, f"tensor {name!r} does not fit into the file")
    file.seek(start + first)
    raw = np.frombuffer(file.read(last - first), dtype=dtype).reshape(shape)
    if kind == "BF16":  # the upper half of a float32
        return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return raw.astype(np.float64)


def _damaged(path: Path, why: str) -> MetadataError:
    return MetadataError(
        f"is not a whole safetensors file: {why}",
        where=str(path),
        hint="Download the checkpoint again.",
    )
