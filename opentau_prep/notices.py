"""The one channel for everything the user should know that is not an error.

A notice is data: a kind that programs can match on, a message that people can read, and the
dataset, feature and dims it is about. Code that has something to say calls `warn`; where it goes is
decided by the caller: collected with `collect_notices` (the command line, the engine's workers),
or, in plain library use, logged at WARNING on the logger `opentau_prep`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "NAMES_SHOWN",
    "Notice",
    "collect_notices",
    "emit",
    "shorten_names",
    "some_names",
    "warn",
]

NAMES_SHOWN = 10
"""How many names a message lists before it says how many more there are."""

_logger = logging.getLogger("opentau_prep")
_Sink = Callable[["Notice"], None]
_sink: ContextVar[_Sink | None] = ContextVar("opentau_prep_notices", default=None)


@dataclass(frozen=True)
class Notice:
    """One thing worth saying.

    Attributes:
        kind: A short stable slug, such as `"dropped_quantiles"`.
        message: The whole message, readable on its own, with names and numbers in it.
        dataset: The mixture-level name or root of the dataset, when it is about one.
        feature: The feature (column) it is about.
        dims: The dims of that feature it is about.
        details: Anything else a program may want, JSON-ready.
    """

    kind: str
    message: str
    dataset: str | None = None
    feature: str | None = None
    dims: tuple[int, ...] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the notice as a JSON-ready mapping without its empty fields."""
        out: dict[str, Any] = {"kind": self.kind, "message": self.message}
        if self.dataset is not None:
            out["dataset"] = self.dataset
        if self.feature is not None:
            out["feature"] = self.feature
        if self.dims is not None:
            out["dims"] = list(self.dims)
        if self.details:
            out["details"] = dict(self.details)
        return out


def shorten_names(names: Iterable[object]) -> tuple[list[str], str]:
    """Return at most ten names, and " and N more" for the rest ("" when all are shown)."""
    everyone = [str(name) for name in names]
    rest = len(everyone) - NAMES_SHOWN
    return everyone[:NAMES_SHOWN], f" and {rest} more" if rest > 0 else ""


def some_names(names: Iterable[object]) -> str:
    """Return names in one text: `a, b, c`, at most ten and " and N more"."""
    shown, more = shorten_names(names)
    return ", ".join(shown) + more


def warn(
    kind: str,
    message: str,
    *,
    dataset: str | None = None,
    feature: str | None = None,
    dims: tuple[int, ...] | None = None,
    **details: Any,
) -> None:
    """Say something through the channel; see `Notice` for the arguments."""
    emit(Notice(kind, message, dataset, feature, dims, details))


def emit(notice: Notice) -> None:
    """Pass a notice on: to the innermost collector, or to the log."""
    sink = _sink.get()
    if sink is not None:
        sink(notice)
    else:
        _logger.warning(notice.message, extra={"notice": notice})


@contextlib.contextmanager
def collect_notices(on_notice: _Sink | None = None) -> Iterator[list[Notice]]:
    """Collect the notices of the block into the list that is yielded, in order.

    Args:
        on_notice: Called with each notice as it comes, for those who show them at once.
    """
    collected: list[Notice] = []

    def sink(notice: Notice) -> None:
        collected.append(notice)
        if on_notice is not None:
            on_notice(notice)

    token = _sink.set(sink)
    try:
        yield collected
    finally:
        _sink.reset(token)
