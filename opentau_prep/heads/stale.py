"""Stale files of one run, reported once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from opentau_prep.notices import Notice, collect_notices, emit, shorten_names, warn

__all__ = ["stale_reported_once"]

_KIND = "stale_artifact"


@contextlib.contextmanager
def stale_reported_once() -> Iterator[None]:
    """Make one notice of all that the block says about stale files; pass on the others.

    A change in one dataset makes the files of its whole head stale: as many warnings would bury it.
    """
    collected: Sequence[Notice] = ()
    try:
        with collect_notices() as collected:
            yield
    finally:
        for notice in collected:
            if notice.kind != _KIND:
                emit(notice)
        _report([notice for notice in collected if notice.kind == _KIND])


def _report(stale: Sequence[Notice]) -> None:
    if len(stale) <= 1:
        for notice in stale:
            emit(notice)
        return
    changes = {str(each.dataset or each.details["artifact"]): each.details for each in stale}
    parts = [f"{name} ({', '.join(found['changes'])})" for name, found in changes.items()]
    shown, suffix = shorten_names(parts)
    warn(
        _KIND,
        f"{len(stale)} files are stale and are written again: {', '.join(shown)}{suffix}",
        artifacts={name: dict(found) for name, found in changes.items()},
    )
