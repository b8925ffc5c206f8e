"""The outcome of `heads` as tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from opentau_prep.cli.tables import failures_text, table
from opentau_prep.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.heads.audit import AuditReport
    from opentau_prep.heads.explain import DimExplanation
    from opentau_prep.heads.report import HeadsReport

__all__ = ["heads_tables"]

MAX_CONTRIBUTORS = 20


def heads_tables(report: HeadsReport) -> Callable[[Console], None]:
    """Return what draws the heads, the files, and the audit and explanation if there are any."""

    def render(console: Console) -> None:
        _heads(console, report)
        _files(console, report)
        failures_text(console, report.failures)
        for explanation in report.explanations:
            _explanation(console, explanation)
        if report.audit is not None:
            _audit(console, report.audit)

    return render


def _heads(console: Console, report: HeadsReport) -> None:
    known = any(summary.ranks for summary in report.summaries)
    rows = []
    for head in report.summaries:
        worst = head.worst_rank
        row = [
            head.row,
            head.key,
            len(head.members),
            int(head.frames),
            f"{head.state_dim} / {head.action_dim}",
            "own name: no tags" if head.is_fallback else "-",
        ]
        rows.append([*row, "-" if worst is None else f"{worst:.2%}"] if known else row)
    columns = ["#row", "head", "#members", "#frames", "#state / action dims", "?fallback"]
    console.print(table([*columns, "?#worst q01/q99 rank"] if known else columns, rows))


def _files(console: Console, report: HeadsReport) -> None:
    if report.out is not None:
        console.print(f"{report.out.path}: {report.out.status}", markup=False, soft_wrap=True)
    counts = Counter(file.status for file in report.files)
    parts = ", ".join(f"{n:,} {status}" for status, n in counts.items())
    console.print(f"meta/norm_heads/ of the datasets: {parts or 'none'}", markup=False)


def _explanation(console: Console, each: DimExplanation) -> None:
    stats = list(each.values)
    n = len(each.contributions)
    title = f"{each.norm_key}: {each.feature}[{each.dim}], {each.how}"
    rows: list[list[object]] = []
    total = sum(part.weight for part in each.contributions)
    for part in each.contributions[:MAX_CONTRIBUTORS]:
        share = f"{part.weight / total:.1%}" if total else "-"
        values = [_value(part.values.get(s), s in part.masked) for s in stats]
        rows.append([part.dataset, part.source or "(padding)", int(part.weight), share, *values])
    if n > MAX_CONTRIBUTORS:
        rows.append([f"and {n - MAX_CONTRIBUTORS} more", *("" for _ in range(3 + len(stats)))])
    rows.append(["= head", "", "", "", *(_value(each.values[s], False) for s in stats)])
    columns = ["contributor", "column", "#weight", "#share", *(f"#{s}" for s in stats)]
    console.print(table(columns, rows, title=title))
    if each.dropped_quantiles:
        dropped = ", ".join(each.dropped_quantiles)
        console.print(printable(f"dropped, since some members lack them: {dropped}"), markup=False)


def _audit(console: Console, audit: AuditReport) -> None:
    if audit.findings:
        rows = [
            (
                finding.dataset,
                "; ".join(f"{f} {', '.join(map(str, d))}" for f, d in finding.dims.items()),
                finding.kind,
                f"{finding.confidence:.1%}",
            )
            for finding in audit.findings
        ]
        console.print(table(("dataset", "dims", "looks like", "#how sure"), rows, title="audit"))
        for finding in audit.findings:
            console.print(printable(f"- {finding.message}"), markup=False, soft_wrap=True)
    else:
        console.print("audit: no member is unlike the others of its head")
    few = [f"{h.norm_key} ({h.n_members})" for h in audit.heads if h.tests == "units"]
    alone = [h.norm_key for h in audit.heads if h.tests == "none"]
    if few:
        console.print(
            printable(f"too few members to compare more than units and names: {', '.join(few)}"),
            markup=False,
        )
    if alone:
        console.print(
            printable(f"one member, nothing to compare: {', '.join(alone)}"), markup=False
        )


def _value(value: float | None, masked: bool) -> str:
    if value is None:
        return "-"
    text = f"{int(value):,}" if value.is_integer() else f"{value:.5g}"
    return f"{text} (left out)" if masked else text
