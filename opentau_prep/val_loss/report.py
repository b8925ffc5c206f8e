"""From loss files to a report: table rows, JSON, CSV, and what got worse since an earlier run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from opentau_prep.artifacts.jsonio import load_own
from opentau_prep.errors import ConfigError, DataError, MetadataError
from opentau_prep.val_loss.files import read_losses
from opentau_prep.val_loss.result import LossRow, result_rows
from opentau_prep.val_loss.sources import MixtureFacts

__all__ = [
    "REPORT_SCHEMA_VERSION",
    "Change",
    "ValidationReport",
    "build_report",
    "compare_results",
    "parse_loss_weights",
    "read_report",
    "worse_than",
]

REPORT_SCHEMA_VERSION: Final = 1
_STATUS_ORDER: Final = ("broken", "worse", "new", "gone", "better", "same")
_COMPARED: Final = ("before", "change", "relative", "status")
_NUMBERS: Final = {"Infinity": float("inf"), "-Infinity": float("-inf")}


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
        status: `worse`, `better`, `same`, `new` (only now), `gone` (only before), or `broken`
            (only before, since all its samples are NaN or infinite now).
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
        """Return the report for `artifacts.jsonio.dump_own`; `from_json` reads it back."""
        out: dict[str, Any] = {
            "schema_version": REPORT_SCHEMA_VERSION,
            "result": _with_numbers(self.result),
        }
        if self.changes is not None:
            out["changes"] = [asdict(change) for change in self.changes]
        return out

    @classmethod
    def from_json(cls, document: Mapping[str, Any], where: str) -> ValidationReport:
        """Return the report that `as_json` gave.

        Args:
            document: The mapping.
            where: The file it comes from, for the message.

        Raises:
            DataError: It is malformed, or of another version.
        """
        try:
            version = document["schema_version"]
            result = dict(document["result"])
            compare_results(result, result)
            changes = document.get("changes")
            made = None if changes is None else tuple(Change(**change) for change in changes)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _not_a_report(where, f"{type(error).__name__}: {error}") from error
        if version != REPORT_SCHEMA_VERSION:
            raise _not_a_report(where, f"version {version!r} of {REPORT_SCHEMA_VERSION}")
        return cls(result, made)

    def as_csv(self) -> str:
        """Return the table as CSV with a header; numbers are written so that none loses a bit.

        With an earlier run, each line also has its `Change`, and losses that are gone are last.
        """
        out = io.StringIO()
        compared = self.changes is not None
        columns = [*LossRow.__dataclass_fields__, *(_COMPARED if compared else ())]
        writer = csv.DictWriter(out, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        changes = {row_key(change): asdict(change) for change in self.changes or ()}
        for row in self.rows():
            writer.writerow({**changes.pop(row_key(row), {}), **asdict(row)})
        writer.writerows(changes.values())
        return out.getvalue()


def build_report(
    paths: Iterable[str | Path],
    *,
    sources: MixtureFacts | None = None,
    loss_weights: Mapping[str, float] | None = None,
    earlier: Mapping[str, Any] | None = None,
) -> ValidationReport:
    """Return the report on the loss files of one run.

    Args:
        paths: JSONL or parquet files; see `opentau_prep.val_loss.files`.
        sources: What the mixture says about its samples.
        loss_weights: Weights of the losses in a `total`.
        earlier: The result of an earlier run to compare with.

    Raises:
        ConfigError: Weights do not fit, or name a loss that no file has.
        DataError: A file is missing or malformed, or a sample is not of the mixture.
    """
    check = None if sources is None else sources.check_member
    losses = read_losses(paths, check=check)
    result = losses.result_for(sources or MixtureFacts(), loss_weights)
    found = {name for group in result["groups"] for name in group["losses"]}
    if unknown := sorted(set(loss_weights or ()) - found):
        raise ConfigError(
            f"no file has the loss {', '.join(unknown)}",
            where="loss weights",
            hint=f"The files have {', '.join(sorted(found))}.",
        )
    changes = None if earlier is None else compare_results(result, earlier)
    return ValidationReport(result, changes)


def read_report(path: str | Path) -> ValidationReport:
    """Return the report that `val-report` wrote.

    Raises:
        DataError: The file is missing, or is not such a report.
    """
    try:
        document = load_own(Path(path).read_bytes(), where=str(path))
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except MetadataError as error:
        raise _not_a_report(str(path), error.message) from error
    return ValidationReport.from_json(document, str(path))


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


def compare_results(now: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return every loss of two results side by side: the worst relative rise first.

    Losses that only one of them has are `new`, `gone` or `broken`; of the worse ones, a rise from 0
    counts as the worst of all.
    """
    new, old = _values(now), _values(before)
    broken = {row_key(row) for row in result_rows(now) if row.value is None and row.non_finite}
    changes = []
    for key in dict.fromkeys([*new, *old]):
        change = _change(key, new.get(key), old.get(key))
        lost = change.status == "gone" and key in broken
        changes.append(replace(change, status="broken") if lost else change)
    return tuple(sorted(changes, key=_badness))


def worse_than(changes: Iterable[Change], percent: float) -> tuple[Change, ...]:
    """Return the changes for the worse by more than some percent; `broken` ones always count."""
    return tuple(
        change
        for change in changes
        if change.status == "broken"
        or (
            change.status == "worse"
            and (change.relative is None or change.relative * 100 > percent)
        )
    )


def row_key(row: LossRow | Change) -> tuple[str, str, str, str, str]:
    """Return what identifies a row across runs."""
    # A group's head is no part of its identity: heads change when the mixture does.
    head = row.norm_head if row.scope == "norm_head" else ""
    return (row.scope, row.dataset, row.control_mode, head, row.loss)


def _values(result: Mapping[str, Any]) -> dict[tuple[str, ...], float]:
    """Return the losses that have a value, keyed by what identifies them across runs."""
    return {
        row_key(row): _NUMBERS[row.value] if isinstance(row.value, str) else float(row.value)
        for row in result_rows(result)
        if row.value is not None
    }


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


def _with_numbers(value: Any, key: str = "") -> Any:
    """Return the value with infinite losses as numbers: our files have a spelling for them."""
    if isinstance(value, Mapping):
        return {k: _with_numbers(v, k) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_numbers(item) for item in value]
    if key in ("loss", "weight", "total") and isinstance(value, str):
        return _NUMBERS[value]
    return value


def _not_a_report(where: str, why: str) -> DataError:
    return DataError(
        f"not a validation report ({why})",
        where=where,
        hint="Compare with the JSON file that an earlier val-report wrote.",
    )
