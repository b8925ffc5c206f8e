"""The fingerprint of a whole mixture: what a tokenizer's provenance says it was made from."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import tokenizers

from opentau_prep.engine import Failure
from opentau_prep.metadata.inputs import describe_inputs

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture

__all__ = ["mixture_inputs"]

_SMALL_MIXTURE = 64


def mixture_inputs(
    resolved: ResolvedMixture, heads_sha256: str, context: RunContext, *, read: bool = True
) -> dict[str, Any]:
    """Return the fingerprint of a mixture's content, JSON-ready.

    A dataset whose files cannot be read has a fingerprint that says so: mending it makes the
    tokenizer stale.

    Args:
        resolved: The mixture.
        heads_sha256: The hash of what its actions are normalized with.
        context: How to run.
        read: Whether data files may be read to hash them; see `describe_inputs`.

    Raises:
        PrepError: A dataset's tables or files cannot be read, and `context.keep_going` is off.
    """
    found = context.map(
        "checking what changed",
        partial(_describe, read=read),
        resolved.first_entries,
        [entry.name for entry in resolved.first_entries],
        items_per_worker=_SMALL_MIXTURE,
    )
    each: list[dict[str, Any]] = [
        {"unreadable": str(f.error)} if isinstance(f, Failure) else f for f in found
    ]
    whole = [one for one in each if "episodes" in one]
    return {
        "mixture": {"count": len(resolved.entries), "sha256": resolved.mixture.sha256},
        "episodes": {
            "count": sum(one["episodes"]["count"] for one in whole),
            "frames": sum(one["episodes"]["frames"] for one in whole),
            "sha256": _hash([one.get("episodes") for one in each]),
        },
        "data": _data(each, whole),
        "heads": {"sha256": heads_sha256},
        "tokenizers": tokenizers.__version__,
    }


def _data(each: list[dict[str, Any]], whole: list[dict[str, Any]]) -> dict[str, Any]:
    files = {"files": sum(one["data"]["files"] for one in whole)}
    if any("sha256" not in one["data"] for one in whole):
        return files
    return {**files, "sha256": _hash([one.get("data", one) for one in each])}


def _describe(entry: ResolvedEntry, *, read: bool) -> dict[str, Any]:
    return describe_inputs(entry.meta, read=read)


def _hash(values: list[Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
