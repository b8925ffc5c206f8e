"""`opentau-prep stats --format lerobot-relative` and `--format groot`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.cli.command import Result
from opentau_prep.cli.tables import Render, failures_text, table

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.cli.session import Session
    from opentau_prep.stats.relative_run import RelativeReport

__all__ = ["run_relative"]


def run_relative(
    session: Session,
    roots: list[str] | None,
    mixture_json: Path | None,
    options: Mapping[str, Any],
) -> Result:
    """Compute the stats of relative actions.

    Args:
        session: The command's session.
        roots: Dataset folders.
        mixture_json: A mixture.
        options: The fields of `RelativeOptions`.
    """
    from opentau_prep.cli.targets import load_targets
    from opentau_prep.stats.relative_run import RelativeOptions, prepare_relative

    resolved = load_targets(roots, mixture_json, session.context, frames=True, one_by_one=True)
    report = prepare_relative(resolved, session.context, RelativeOptions(**options))
    return Result(report.as_json(), relative_table(report), exit_code=int(report.needs_attention))


def relative_table(report: RelativeReport) -> Render:
    """Return what draws the outcome."""

    def render(console: Console) -> None:
        from opentau_prep.cli.stats_tables import stats_table

        if report.stats.results:
            stats_table(report.stats)(console)
        rows = [
            (
                result.name,
                ", ".join(f"{key} {_dims(dims)}" for key, dims in result.relative.items()),
                "-" if result.chunks is None else result.chunks,
                result.quantiles or "-",
                result.status,
                result.path,
                "-" if result.backup is None else result.backup.name,
            )
            for result in report.results
        ]
        if rows:
            console.print(table(_COLUMNS, rows))
        for result in report.results:
            for key, why in result.left_out.items():
                console.print(f"{result.name}: no relative stats of {key}: {why}", markup=False)
        failures_text(console, report.failures)

    return render


_COLUMNS = ("dataset", "relative", "#chunks", "quantiles", "status", "file", "backup")


def _dims(dims: Any) -> str:
    listed = list(dims)
    if listed and listed == list(range(listed[0], listed[-1] + 1)):
        return f"[{listed[0]}..{listed[-1]}]"
    return f"[{', '.join(map(str, listed))}]"
