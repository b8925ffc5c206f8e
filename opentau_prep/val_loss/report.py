"""From loss files to a report: table rows, JSON, CSV, and what got worse since an earlier run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from opentau_prep.errors import ConfigError, DataError
from opentau_prep.val_loss.loss_files import read_losses
from opentau_prep.val_loss.provenance import HeadsLike

__all__ = [
    "Change",
    "LossRow",
    "ValidationReport",
    "build_report",
    "compare_results",
    "load_report",
    "parse_loss_weights",
    "result_rows",
]

_SCHEMA_VERSION: Final = 1
_TOTAL: Final = "total"
_STATUS_ORDER: Final = ("worse", "new", "gone", "better", "same")
_NON_FINITE_TEXT: Final = {"Infinity": float("inf"), "-Infinity": float("-inf")}


@dataclass(frozen=True)
class LossRow:
    """One line of the table.

    Attributes:
        scope: `group`, `norm_head` or `aggregate`.
        dataset: The group's dataset; empty for the other scopes.
        control_mode: The group's control mode; empty for the other scopes.
        norm_head: The head's norm key; of a group, its head's, or empty.
        loss: Loss name, or `total` for the weighted total.
        value: The loss; None when nothing was counted.
        count: What it was divided by; None for a total.
        samples: Samples behind it.
        non_finite: How many of them were left out for a NaN or an infinity.
    """

    scope: str
    dataset: str
    control_mode: str
    norm_head: str
    loss: str
    value: float | str | None
    count: int | float | None
    samples: int
    non_finite: int


@dataclass(frozen=True)
class Change:
    """One loss of one group, head or of the aggregate in two runs.

    Attributes:
        scope: As in `LossRow`; so are the next four.
        dataset: See `LossRow`.
        control_mode: See `LossRow`.
        norm_head: See `LossRow`.
        loss: See `LossRow`.
        before: Value in the earlier run; None when it is not there.
        now: Value in this run; None when it is not there.
        change: `now - before`; None unless both are there.
        relative: `change / abs(before)`; None unless both are there and `before` is not 0.
        status: `worse`, `better`, `same`, `new` (only now) or `gone` (only before).
    """

    scope: str
    dataset: str
    control_mode: str
    norm_head: str
    loss: str
    before: float | None
    now: float | None
    change: float | None
    relative: float | None
    status: str


@dataclass(frozen=True)
class ValidationReport:
    """A breakdown of validation losses, and how it compares with an earlier one.

    Attributes:
        result: As `GroupedLosses.result` returns it.
        changes: What changed since the earlier run, worst first; None when there is no earlier run.
    """

    result: Mapping[str, Any]
    changes: tuple[Change, ...] | None = None

    def rows(self) -> list[LossRow]:
        """Return the table: groups, heads, aggregate."""
        return result_rows(self.result)

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON-ready mapping, which `load_report` reads back."""
        out: dict[str, Any] = {"schema_version": _SCHEMA_VERSION, "result": dict(self.result)}
        if self.changes is not None:
            out["changes"] = [asdict(change) for change in self.changes]
        return out

    def as_csv(self) -> str:
        """Return the table as CSV with a header; numbers as Python prints them, so none loses a bit."""
        return _csv(LossRow, self.rows())

    def changes_as_csv(self) -> str:
        """Return the comparison as CSV with a header; the header alone when there is none."""
        return _csv(Change, self.changes or ())


def build_report(
    paths: Iterable[str | Path],
    *,
    heads: HeadsLike | None = None,
    weights: Mapping[str, float] | Sequence[float] | None = None,
    control_modes: Mapping[str, str | None] | None = None,
    loss_weights: Mapping[str, float] | None = None,
    earlier: Mapping[str, Any] | None = None,
) -> ValidationReport:
    """Return the report on the loss files of one run, one file a rank.

    Args:
        paths: JSONL or parquet files; `opentau_prep.val_loss.loss_files` says what is in them.
        heads: See `GroupedLosses.result`, as for the next three.
        weights: Mixture weights.
        control_modes: Each dataset's own control mode.
        loss_weights: Weights of the losses in a `total`.
        earlier: The result of an earlier run to compare with, as `load_report` returns it.

    Raises:
        ConfigError: Weights do not fit, or name a loss that no file has.
        DataError: A file is missing or malformed, or its head rows are not those of `heads`.
    """
    result = read_losses(paths).result(
        heads=heads, weights=weights, control_modes=control_modes, loss_weights=loss_weights
    )
    found = {name for group in result["groups"] for name in group["losses"]}
    if unknown := sorted(set(loss_weights or ()) - found):
        raise ConfigError(
            f"no file has the loss {', '.join(unknown)}",
            where="loss weights",
            hint=f"The files have {', '.join(sorted(found))}.",
        )
    changes = None if earlier is None else compare_results(result, earlier)
    return ValidationReport(result, changes)


def result_rows(result: Mapping[str, Any]) -> list[LossRow]:
    """Return a result of `GroupedLosses` as table rows: groups, heads, aggregate."""
    rows: list[LossRow] = []
    for group in result["groups"]:
        head = ", ".join(group["norm_heads"])
        place = ("group", group["dataset"], group["control_mode"], head)
        rows.extend(_entry_rows(group, place))
    for entry in result["norm_heads"]:
        rows.extend(_entry_rows(entry, ("norm_head", "", "", entry["norm_key"])))
    rows.extend(_entry_rows(result["aggregate"], ("aggregate", "", "", "")))
    return rows


def compare_results(now: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return every loss of two results side by side: the worst relative rise first.

    Losses that only one of them has are `new` or `gone`; a rise from 0 counts as the worst of all.
    """
    new, old = _values(now), _values(before)
    changes = [_change(key, new.get(key), old.get(key)) for key in dict.fromkeys([*new, *old])]
    return tuple(sorted((c for c in changes if c is not None), key=_badness))


def load_report(path: str | Path) -> dict[str, Any]:
    """Return the result in a report that `ValidationReport.as_json` gave, for a comparison.

    Raises:
        DataError: The file is missing, or is not such a report.
    """
    try:
        document = json.loads(Path(path).read_bytes())
        result: dict[str, Any] = document["result"]
        result_rows(result)
        _values(result)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"not a validation report ({type(error).__name__}: {error})",
            where=str(path),
            hint="Compare with the JSON that an earlier val-report wrote.",
        ) from error
    return result


def parse_loss_weights(texts: Iterable[str]) -> dict[str, float] | None:
    """Return the weights of arguments such as `MSE=1`; None when there are none.

    Raises:
        ConfigError: An argument is not `NAME=NUMBER`, or names a loss a second time.
    """
    weights: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        name = name.strip()
        try:
            weight = float(number)
        except ValueError:
            weight = float("nan")
        if not (name and equals) or weight - weight != 0 or name in weights:
            raise ConfigError(
                f"{text!r} is not NAME=NUMBER, or names a loss twice",
                where="--loss-weight",
                hint="For example: --loss-weight MSE=1 --loss-weight CE=0.1",
            )
        weights[name] = weight
    return weights or None


def _entry_rows(entry: Mapping[str, Any], place: tuple[str, str, str, str]) -> Iterator[LossRow]:
    losses = entry["losses"]
    for name, loss in losses.items():
        yield LossRow(
            *place, name, loss["loss"], loss["count"], loss["samples"], loss["non_finite"]
        )
    if _TOTAL in entry:
        samples = max((loss["samples"] for loss in losses.values()), default=0)
        broken = max((loss["non_finite"] for loss in losses.values()), default=0)
        yield LossRow(*place, _TOTAL, entry[_TOTAL], None, samples, broken)


def _values(result: Mapping[str, Any]) -> dict[tuple[str, ...], float]:
    """Return the losses that have a value, keyed by what identifies them across runs."""
    values = {}
    for row in result_rows(result):
        if row.value is not None:
            # A group's head is no part of its identity: heads change when the mixture does.
            head = row.norm_head if row.scope == "norm_head" else ""
            key = (row.scope, row.dataset, row.control_mode, head, row.loss)
            values[key] = (
                _NON_FINITE_TEXT[row.value] if isinstance(row.value, str) else float(row.value)
            )
    return values


def _change(key: tuple[str, ...], now: float | None, before: float | None) -> Change:
    scope, dataset, mode, head, loss = key
    place = (scope, dataset, mode, head, loss)
    if now is None or before is None:
        return Change(*place, before, now, None, None, "new" if before is None else "gone")
    if now == before:
        return Change(*place, before, now, 0.0, 0.0 if before else None, "same")
    change = now - before
    relative = change / abs(before) if before else None
    return Change(*place, before, now, change, relative, "worse" if now > before else "better")


def _badness(change: Change) -> tuple[int, float, tuple[str, ...]]:
    rise = change.relative if change.relative is not None else float("inf")
    place = (change.scope, change.dataset, change.control_mode, change.norm_head, change.loss)
    return _STATUS_ORDER.index(change.status), -rise, place


def _csv(record: type[LossRow] | type[Change], rows: Sequence[LossRow | Change]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(record.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return out.getvalue()
