"""From loss files to a report: table rows, JSON, CSV, and what got worse since an earlier run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from opentau_prep.artifacts.jsonio import load_own
from opentau_prep.errors import ConfigError, DataError, MetadataError
from opentau_prep.val_loss.compare import Change, compare_results, row_key
from opentau_prep.val_loss.loss_files import Check, read_losses
from opentau_prep.val_loss.provenance import HeadsLike
from opentau_prep.val_loss.rows import LossRow, result_rows

__all__ = [
    "REPORT_SCHEMA_VERSION",
    "ValidationReport",
    "build_report",
    "load_report",
    "parse_loss_weights",
    "read_report",
]

REPORT_SCHEMA_VERSION: Final = 1
_COMPARED: Final = ("before", "change", "relative", "status")
_NUMBERS: Final = {"Infinity": float("inf"), "-Infinity": float("-inf")}


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

        With an earlier run, each line also has its `Change`, and losses that are gone stand last.
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
    heads: HeadsLike | None = None,
    weights: Mapping[str, float] | Sequence[float] | None = None,
    control_modes: Mapping[str, str | None] | None = None,
    loss_weights: Mapping[str, float] | None = None,
    earlier: Mapping[str, Any] | None = None,
    check: Check | None = None,
) -> ValidationReport:
    """Return the report on the loss files of one run, one file a rank.

    Args:
        paths: JSONL or parquet files; `opentau_prep.val_loss.loss_files` says what is in them.
        heads: See `GroupedLosses.result`, as for the next three.
        weights: Mixture weights.
        control_modes: Each dataset's own control mode.
        loss_weights: Weights of the losses in a `total`.
        earlier: The result of an earlier run to compare with, as `load_report` returns it.
        check: See `read_losses`.

    Raises:
        ConfigError: Weights do not fit, or name a loss that no file has.
        DataError: A file is missing or malformed, or its head rows are not those of `heads`.
    """
    result = read_losses(paths, check=check).result(
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


def load_report(path: str | Path) -> dict[str, Any]:
    """Return the result in a report that `val-report --out` wrote, for a comparison.

    Raises:
        DataError: The file is missing, or is not such a report.
    """
    return dict(read_report(path).result)


def read_report(path: str | Path) -> ValidationReport:
    """Return the report that `val-report --out` wrote.

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


def _with_numbers(value: Any, key: str = "") -> Any:
    """Return the value with infinite losses as numbers: files of ours spell them themselves."""
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
        hint="Compare with the JSON that an earlier val-report --out wrote.",
    )
