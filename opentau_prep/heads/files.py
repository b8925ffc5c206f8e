"""Norm heads as files: every bit and dtype comes back.

Stats are plain nested lists, so that any JSON reader can use them. What JSON cannot say is next
to them: `dtypes` names each array that is not float64.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.artifacts.jsonio import dump_own, load_own
from opentau_prep.errors import MetadataError
from opentau_prep.heads.build import NormHeads

if TYPE_CHECKING:
    from opentau_prep.heads.build import Stats

__all__ = ["FORMAT", "decode_heads", "encode_heads", "head_document", "load_norm_heads"]

FORMAT = "opentau-prep/norm-heads"
_DTYPES = (
    "float16",
    "float32",
    "float64",
    "bool",
    *(f"{u}int{b}" for u in ("", "u") for b in (8, 16, 32, 64)),
)


def load_norm_heads(path: str | os.PathLike[str]) -> NormHeads:
    """Return the heads that `opentau-prep heads --out` wrote, with every bit and dtype.

    Args:
        path: The file.

    Raises:
        MetadataError: The file is missing, damaged, or of another kind.
    """
    file = Path(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise MetadataError(
            f"cannot be read ({(error.strerror or str(error)).lower()})",
            where=str(file),
            hint="The command `heads` writes it, from a mixture's JSON file.",
        ) from error
    return decode_heads(content, where=str(file))


def head_document(heads: NormHeads, row: int) -> dict[str, Any]:
    """Return one head JSON-ready: key, row, members, stats and their dtypes."""
    key = heads.norm_keys[row]
    stats = heads.per_norm_key_stats[row]
    return {
        "key": key,
        "row": row,
        "members": list(heads.norm_key_to_dataset_names[key]),
        "stats": stats,
        "dtypes": _dtypes(stats),
    }


def encode_heads(heads: NormHeads, extra: Mapping[str, Any] | None = None) -> bytes:
    """Return the content of the mixture's file.

    Args:
        heads: The heads.
        extra: JSON-ready facts that are written next to them, such as the options.
    """
    return dump_own(
        {
            "format": FORMAT,
            **(extra or {}),
            "norm_keys": heads.norm_keys,
            "dataset_to_norm_index": heads.dataset_to_norm_index,
            "heads": [head_document(heads, row) for row in range(len(heads.norm_keys))],
        }
    )


def decode_heads(content: bytes, *, where: str) -> NormHeads:
    """Return what `encode_heads` was given.

    Raises:
        MetadataError: The content is damaged or of another kind.
    """
    document = load_own(content, where=where)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise MetadataError("holds no norm heads", where=where, hint=_HINT)
    try:
        entries = [_checked(entry, row) for row, entry in enumerate(document["heads"])]
        keys = [entry["key"] for entry in entries]
        rows = {str(name): int(row) for name, row in document["dataset_to_norm_index"].items()}
        heads = NormHeads(
            norm_keys=keys,
            per_norm_key_stats=[decode_stats(entry["stats"], entry["dtypes"]) for entry in entries],
            norm_key_to_index={key: row for row, key in enumerate(keys)},
            dataset_to_norm_index=rows,
            norm_key_to_dataset_names={entry["key"]: entry["members"] for entry in entries},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise MetadataError(f"is damaged ({error})", where=where, hint=_HINT) from error
    members = {name: row for row, entry in enumerate(entries) for name in entry["members"]}
    if members != rows or len(set(keys)) != len(keys):
        raise MetadataError("its heads and datasets do not fit", where=where, hint=_HINT)
    return heads


def decode_stats(stats: Mapping[str, Any], dtypes: Mapping[str, Any]) -> Stats:
    """Return stats as arrays, from the lists and dtypes of `head_document`."""
    return {
        feature: {
            stat: _array(value, dtypes.get(feature, {}).get(stat, "float64"))
            for stat, value in entry.items()
        }
        for feature, entry in stats.items()
    }


_HINT = "Write it again with the command `heads` and --force."


def _array(value: Any, dtype: str) -> NDArray[Any]:
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r}")
    return np.array(value, dtype=dtype)


def _dtypes(stats: Stats) -> dict[str, dict[str, str]]:
    found = {
        feature: {s: str(v.dtype) for s, v in entry.items() if v.dtype != np.float64}
        for feature, entry in stats.items()
    }
    return {feature: entry for feature, entry in found.items() if entry}


def _checked(entry: Mapping[str, Any], row: int) -> Mapping[str, Any]:
    members: Sequence[Any] = entry["members"]
    if not isinstance(entry["key"], str) or entry["row"] != row or not isinstance(members, list):
        raise ValueError(f"head {row}")
    return entry
