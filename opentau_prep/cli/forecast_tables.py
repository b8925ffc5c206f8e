"""The outcome of `forecast` for people: a verdict per dataset, and what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.cli.tables import Render, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from opentau_prep.forecast.measure import DimForecast
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
        def say(text: str) -> None:
            console.print(text, markup=False, soft_wrap=True)

        how = "frames" if forecast.deep else "sketches and stats"
        say(f"Stats: {forecast.kind}, {forecast.source}")
        say(f"Normalized by {forecast.formula}'s formula; data from {how}.")
        columns = ("dataset", "verdict", "mode", "#beyond 1", "#beyond 5", "#largest", "findings")
        console.print(table(columns, [_row(member) for member in forecast.members]))
        findings = forecast.findings
        for finding in findings[:MAX_FINDINGS]:
            say(f"{finding.code} {finding.message}")
        if len(findings) > MAX_FINDINGS:
            say(f"and {len(findings) - MAX_FINDINGS} more: see --json")
        for code, hint, line in dict.fromkeys((f.code, f.hint, f.command) for f in findings):
            say(f"{code} {hint}" + (f" {line}" if line else ""))
        reasons = dict.fromkeys(m.reason for m in forecast.members if m.verdict == forecast.verdict)
        say(f"{_VERDICTS[forecast.verdict]} Why: {next(iter(reasons))}.")
        if forecast.out is not None:
            say(f"{forecast.out.path}: {forecast.out.status}")

    return render


def _row(member: MemberForecast) -> list[object]:
    """Return the dataset's worst mode: that of a finding, else of the largest value."""
    codes = ", ".join(dict.fromkeys(finding.code for finding in member.findings)) or "-"
    if not member.modes:
        return [member.dataset, member.verdict, "-", "-", "-", "-", codes]
    modes: dict[str, list[DimForecast]] = {}
    for each in member.modes:
        modes.setdefault(each.mode, []).extend(each.dims)
    found = [f.mode for f in member.findings if f.mode in modes]
    worst = max(modes, key=lambda mode: _largest(modes[mode]))
    mode = next((m for m in found if m is not None), worst)
    dims = modes[mode]
    largest = _largest(dims)
    shown = f"{largest:,.0f}" if largest >= 1000 else f"{largest:.2f}"
    return [member.dataset, member.verdict, mode, _worst(dims, 0), _worst(dims, 2), shown, codes]


def _largest(dims: Sequence[DimForecast]) -> float:
    return max((abs(d.largest) for d in dims if np.isfinite(d.largest)), default=0.0)


def _worst(dims: Sequence[DimForecast], bound: int) -> str:
    shares = [d.beyond[bound] for d in dims if np.isfinite(d.beyond[bound])]
    return f"{max(shares):.1%}" if shares else "?"
