"""Warnings as data: everything that the user should know and that is not an error.

A notice has a kind that programs can match on, a message that people can read, and the dataset,
feature and dims that it is about. `warn` logs it at WARNING through `logging`, on the logger of the
module that calls it (`opentau_prep.pooling.aggregate`, say), as the attribute `notice` of an
ordinary record: library users filter and format it like any other warning, and the command line
renders the same records with `notices_shown_by`.

`collect_notices` holds notices back from the log: for a worker, whose notices the main process
logs; for a verb, which passes each on once; and for code that only wants to know of them.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "NAMES_SHOWN",
    "Notice",
    "collect_notices",
    "emit",
    "notices_shown_by",
    "shorten_names",
    "some_names",
    "warn",
    "without_notices",
]

NAMES_SHOWN = 10
"""How many names a message lists before it says how many more there are."""

_PACKAGE = "opentau_prep"
_Sink = Callable[["Notice"], None]
_sink: ContextVar[_Sink | None] = ContextVar("opentau_prep_notices", default=None)


@dataclass(frozen=True)
class Notice:
    """One warning.

    Attributes:
        kind: A short stable slug, such as `"dropped_quantiles"`.
        message: The whole message, readable on its own, with names and numbers in it.
        dataset: The mixture-level name or root of the dataset, when it is about one.
        feature: The feature (column) it is about.
        dims: The dims of that feature it is about.
        details: Anything else a program may want, JSON-ready.
        logger: Name of the logger that it is logged on.
    """

    kind: str
    message: str
    dataset: str | None = None
    feature: str | None = None
    dims: tuple[int, ...] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    logger: str = field(default=_PACKAGE, compare=False)

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
    """Log a warning on the logger of the calling module; see `Notice` for the arguments."""
    caller = sys._getframe(1).f_globals.get("__name__", _PACKAGE)
    emit(Notice(kind, message, dataset, feature, dims, details, caller))


def emit(notice: Notice) -> None:
    """Pass a notice on: to the innermost collector, or else to its logger."""
    _deliver(_sink.get(), notice)


def _deliver(sink: _Sink | None, notice: Notice) -> None:
    if sink is not None:
        sink(notice)
    else:
        # No arguments: a message may hold a `%` of its own.
        logging.getLogger(notice.logger).warning(notice.message, extra={"notice": notice})


@contextlib.contextmanager
def collect_notices(on_notice: _Sink | None = None) -> Iterator[list[Notice]]:
    """Collect the notices of the block, in order, in the list that is yielded; log none of them.

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


@contextlib.contextmanager
def without_notices(kinds: Collection[str]) -> Iterator[None]:
    """Drop the notices of some kinds in the block, and pass the others on at once."""
    outer = _sink.get()

    def sink(notice: Notice) -> None:
        if notice.kind not in kinds:
            _deliver(outer, notice)

    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


class _NoticeHandler(logging.Handler):
    """Hands the notices among log records to a function."""

    def __init__(self, show: _Sink) -> None:
        super().__init__(logging.WARNING)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        notice = getattr(record, "notice", None)
        if isinstance(notice, Notice):
            self._show(notice)


@contextlib.contextmanager
def notices_shown_by(show: _Sink) -> Iterator[None]:
    """Have a function called with each notice that is logged while the block runs."""
    handler = _NoticeHandler(show)
    logger = logging.getLogger(_PACKAGE)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
