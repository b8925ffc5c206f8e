"""Stale files of one run, said once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from opentau_prep.notices import Notice, collect_notices, emit, shorten_names, warn

__all__ = ["stale_said_once"]

_KIND = "stale_artifact"


@contextlib.contextmanager
def stale_said_once() -> Iterator[None]:
    """Make one notice of all that the block says about stale files; pass on the others.

    A change in one dataset makes the files of its whole head stale: as many warnings would bury it.
    """
    said: Sequence[Notice] = ()
    try:
        with collect_notices() as said:
            yield
    finally:
        for notice in said:
            if notice.kind != _KIND:
                emit(notice)
        _tell([notice for notice in said if notice.kind == _KIND])


def _tell(stale: Sequence[Notice]) -> None:
    if len(stale) <= 1:
        for notice in stale:
            emit(notice)
        return
    changes = {str(each.dataset or each.details["artifact"]): each.details for each in stale}
    told = [f"{name} ({', '.join(found['changes'])})" for name, found in changes.items()]
    shown, suffix = shorten_names(told)
    warn(
        _KIND,
        f"{len(stale)} files are stale and made again: {', '.join(shown)}{suffix}",
        artifacts={name: dict(found) for name, found in changes.items()},
    )
