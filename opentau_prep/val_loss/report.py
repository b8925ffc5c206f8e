"""From loss files to a report: table rows, JSON, CSV, and what got worse since an earlier run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from opentau_prep.errors import ConfigError, DataError
from opentau_prep.val_loss.compare import Change, compare_results
from opentau_prep.val_loss.loss_files import read_losses
from opentau_prep.val_loss.provenance import HeadsLike
from opentau_prep.val_loss.rows import LossRow, result_rows

__all__ = ["ValidationReport", "build_report", "load_report", "parse_loss_weights"]

_SCHEMA_VERSION: Final = 1


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
        """Return the table as CSV with a header; numbers are written so that none loses a bit."""
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


def load_report(path: str | Path) -> dict[str, Any]:
    """Return the result in a report that `ValidationReport.as_json` gave, for a comparison.

    Raises:
        DataError: The file is missing, or is not such a report.
    """
    try:
        document = json.loads(Path(path).read_bytes())
        result: dict[str, Any] = document["result"]
        result_rows(result)
        compare_results(result, result)
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


def _csv(record: type[LossRow] | type[Change], rows: Sequence[LossRow | Change]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(record.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return out.getvalue()
