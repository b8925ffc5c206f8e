"""What was found in each dataset, kept in this user's cache under a key of its own files.

The report as a whole is a `Memory`; this is for when that has changed: a dataset that is as it was
is not checked again, and what it is to its heads is known.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from opentau_prep.artifacts.atomic import write_atomic
from opentau_prep.artifacts.fingerprint import cache_dir
from opentau_prep.artifacts.memory import stamp_of, tool_stamp
from opentau_prep.artifacts.place import safe_folder_name
from opentau_prep.errors import ArtifactError, PrepError
from opentau_prep.heads.members import HeadMember
from opentau_prep.storage import is_remote
from opentau_prep.validate.findings import Finding

if TYPE_CHECKING:
    from opentau_prep.config.salvage import Salvage
    from opentau_prep.context import RunContext
    from opentau_prep.validate.view import CheckOptions, DatasetView

__all__ = ["DatasetMemory", "Known"]

Known = tuple[list[Finding], list[HeadMember]]
"""The findings in one dataset, and what it is to its heads."""


class DatasetMemory:
    """What is remembered of the datasets of one mixture, or of some roots.

    Args:
        subject: What is checked.
        views: Its datasets.
        codes: The rules.
        options: How they are applied.
        context: How to run.
        start_ns: When the run began: what changed since may have been read before.
    """

    def __init__(
        self,
        subject: Salvage,
        views: Sequence[DatasetView],
        codes: Sequence[str],
        options: CheckOptions,
        context: RunContext,
        start_ns: int,
    ) -> None:
        folder = None if context.dry_run or not context.this_rank.is_main else cache_dir()
        mixture = None if subject.mixture is None else subject.mixture.sha256
        places = (context.artifact_root, context.prep_dir, os.getcwd())
        named = subject.path or [view.dataset.root for view in views]
        how = _hash_of(named, codes, options, str(context.shard), places)
        self._file = None if folder is None else folder / "validated" / f"{how[:24]}.json"
        # Of another mixture, commands that settle findings are others.
        self._how = _hash_of(how, mixture, subject.faults, tool_stamp() if folder else "")
        self._artifact_root = context.artifact_root
        self._views = views
        self._start_ns = start_ns
        self._keys = self._now() if folder else []

    def recall(self) -> list[Known | None]:
        """Return what is known of each dataset; None of those that have changed since."""
        kept: Any = None
        if self._file is not None:
            with contextlib.suppress(OSError, ValueError):  # none, or torn
                kept = orjson.loads(self._file.read_bytes())
        if not isinstance(kept, dict):
            return [None] * len(self._views)
        return [
            _known(kept.get(view.dataset.root), key, view)
            for view, key in zip(self._views, self._keys, strict=True)
        ]

    def keep(self, each: Sequence[Known | None]) -> None:
        """Remember what was found in each dataset; None where that may be no fault of its files."""
        if self._file is None:
            return
        pairs = zip(self._views, self._keys, self._now(), each, strict=True)
        kept = {
            view.dataset.root: [key, _as_json(known)]
            for view, key, now, known in pairs
            if known is not None and key and key == now
        }
        with contextlib.suppress(ArtifactError, TypeError):  # all still works, but slower
            write_atomic(self._file, orjson.dumps(kept))

    def _now(self) -> list[str]:
        """Return the key of each dataset; empty where a change could go unnoticed."""
        keys = []
        for view in self._views:
            root = view.dataset.root
            folders = [root]
            if self._artifact_root is not None:
                folders.append(os.fspath(self._artifact_root / safe_folder_name(view.name)))
            if is_remote(root):
                keys.append("")
                continue
            stamp, newest = stamp_of(folders, [root])
            entries = [(entry.index, entry.name) for entry in view.named_by]
            settled = newest < self._start_ns
            keys.append(_hash_of(self._how, entries, stamp) if settled else "")
        return keys


def _hash_of(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()


def _as_json(known: Known) -> list[Any]:
    findings, members = known
    fields = [
        [
            dict(m.info),
            m.norm_key,
            m.is_fallback,
            m.weight,
            {name: {s: _packed(x) for s, x in some.items()} for name, some in m.stats.items()},
            m.raw_dims,
        ]
        for m in members
    ]
    return [[finding.as_json() for finding in findings], fields]


def _packed(array: NDArray[Any]) -> list[Any]:
    data = np.ascontiguousarray(array)
    return [data.dtype.str, np.shape(array), base64.b64encode(data.tobytes()).decode("ascii")]


def _known(kept: Any, key: str, view: DatasetView) -> Known | None:
    """Return what was kept of a dataset, if that was under this key."""
    try:
        own, (findings, members) = kept
        if own != key or not key:
            return None
        return [Finding.from_json(each, each["dataset"]) for each in findings], [
            HeadMember(entry, info, norm_key, fallback, weight, _unpacked(stats), tuple(dims))
            for entry, (info, norm_key, fallback, weight, stats, dims) in zip(
                view.named_by, members, strict=bool(members)
            )
        ]
    except (ValueError, TypeError, KeyError, PrepError):
        return None  # never seen, or of another version


def _unpacked(stats: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, NDArray[Any]]]:
    return {
        feature: {
            name: np.frombuffer(base64.b64decode(data), np.dtype(kind)).reshape(shape)
            for name, (kind, shape, data) in some.items()
        }
        for feature, some in stats.items()
    }
