"""The outcome of `forecast` for people: a verdict per dataset, and what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.cli.tables import Render, table
from opentau_prep.cli.verdict_lines import say, say_command

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.forecast.report import Forecast, MemberForecast

__all__ = ["forecast_tables"]

MAX_FINDINGS = 30
_VERDICTS = {
    "reuse": "Reuse these stats.",
    "recompute": "Recompute the stats, or convert the data.",
    "wrong robot": "These stats are of another robot or action space.",
}


def forecast_tables(forecast: Forecast) -> Render:
    """Return what draws the outcome of `forecast`."""

    def render(console: Console) -> None:
        how = "frames" if forecast.deep else "sketches and stats"
        say(console, f"Stats: {forecast.kind}, {forecast.source}")
        say(console, f"Normalized by {forecast.formula}'s formula; data from {how}.")
        columns = ("dataset", "verdict", "mode", "#beyond 1", "#beyond 5", "#largest", "findings")
        console.print(table(columns, [_row(member) for member in forecast.members]))
        findings = forecast.findings
        for finding in findings[:MAX_FINDINGS]:
            say(console, f"{finding.code} {finding.message}")
        if len(findings) > MAX_FINDINGS:
            say(console, f"and {len(findings) - MAX_FINDINGS} more: see --json")
        for code, hint, line in dict.fromkeys((f.code, f.hint, f.command) for f in findings):
            say(console, f"{code} {hint}" if line else f"{code} By hand: {hint}")
            if line:
                say_command(console, line)
        say(console, f"{_VERDICTS[forecast.verdict]} Why: {forecast.reason}.")
        if forecast.out is not None:
            say(console, f"{forecast.out.path}: {forecast.out.status}")

    return render


def _row(member: MemberForecast) -> list[object]:
    codes = ", ".join(dict.fromkeys(finding.code for finding in member.findings)) or "-"
    worst = member.worst
    if worst is None:
        return [member.dataset, member.verdict, "-", "-", "-", "-", codes]
    largest = f"{worst.largest:,.0f}" if worst.largest >= 1000 else f"{worst.largest:.2f}"
    shares = ["?" if np.isnan(worst.beyond[i]) else f"{worst.beyond[i]:.1%}" for i in (0, 2)]
    return [member.dataset, member.verdict, worst.mode, *shares, largest, codes]
