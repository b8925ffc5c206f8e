"""Reading ahead: files that are opened in the order of their names are fetched several at once.

A store takes as long to answer as it takes to send a megabyte. Datasets of one small file an
episode would spend nearly all their time waiting, one file after the other. As a disk's read-ahead
does, this one starts with nothing and doubles for as long as the next name is the next one opened;
whoever opens here and there has nothing fetched in vain.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence

__all__ = ["ReadAhead"]

FetchTails = Callable[[Sequence[str]], Mapping[str, bytes]]

_MOST_FILES = 16


class ReadAhead:
    """The ends of files that will probably be opened next; for any number of threads.

    Args:
        names: The files, in the order in which they may be opened.
        fetch: Returns the ends of files, as many as could be read, in one round trip.
    """

    def __init__(self, names: Sequence[str], fetch: FetchTails) -> None:
        self._next = dict(itertools.pairwise(names))
        self._fetch = fetch
        self._lock = threading.Lock()
        self._expected: str | None = None
        self._window = 1
        self._held: dict[str, bytes] = {}

    def take(self, name: str) -> bytes | None:
        """Return the end of a file that is opened now; None when it has not been fetched."""
        with self._lock:
            in_order = name == self._expected
            self._expected = self._next.get(name)
            if name in self._held:
                return self._held.pop(name)
            self._window = min(2 * self._window, _MOST_FILES) if in_order else 1
            self._held = {}
            names = self._following(name, self._window)
        if len(names) == 1:
            return None
        found = dict(self._fetch(names))
        own = found.pop(name, None)
        with self._lock:
            self._held.update(found)
        return own

    def _following(self, name: str, count: int) -> list[str]:
        names = [name]
        while len(names) < count and names[-1] in self._next:
            names.append(self._next[names[-1]])
        return names
