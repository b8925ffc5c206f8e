"""What `val-plan` and `val-report` show to people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentau_prep.cli.tables import Render, table

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.artifacts.store import Outcome
    from opentau_prep.val_loss.prepare_plan import PlanReport
    from opentau_prep.val_loss.prepare_report import LossReport
    from opentau_prep.val_loss.report import Change

__all__ = ["plan_tables", "report_tables"]

MAX_CHANGES = 30
Losses = Mapping[str, Any]


def plan_tables(report: PlanReport) -> Render:
    """Return what draws the outcome of `val-plan`."""

    def render(console: Console) -> None:
        shown = report.plan.as_json()
        sets = [
            (d["name"], d["selected_frames"], d["val_split_ratio"], d["samples"], d["rounds_alone"])
            for d in shown["datasets"]
        ]
        columns = ("dataset", "#frames", "#ratio", "#held out", "#rounds alone")
        console.print(table(columns, sets))
        places = shown["rounds"] * shown["batch_size"]
        ranks = [
            (f"{r['rank']}", r["samples"], _span(*r["range"]), places - r["samples"])
            for r in shown["ranks"]
        ]
        console.print(table(("#rank", "#samples", "#positions", "#filler rows"), ranks))
        if shown["split"] == "training":
            console.print(f"Held out: the rows that OpenTau holds out with seed {shown['seed']}.")
        else:
            console.print("Held out: the last episodes of each task, as LeRobot's eval_split.")
        console.print(
            f"{shown['total_samples']:,} samples in {shown['rounds']:,} rounds of "
            f"{shown['world_size']:,} x {shown['batch_size']:,}; a loop over the datasets takes "
            f"{shown['rounds_per_dataset_loop']:,}. Expected speed-up: "
            f"{shown['expected_speed_up']:.2f}"
        )
        _say_written(console, [report.outcome] if report.outcome else [])

    return render


def report_tables(report: LossReport) -> Render:
    """Return what draws the outcome of `val-report`: the highest losses first."""

    def render(console: Console) -> None:
        result = report.report.result
        names = list(result["aggregate"]["losses"]) or _names(result["groups"])
        names += ["total"] if "total" in result["aggregate"] else []
        losses = [f"#{name}" for name in names]
        groups = [
            (
                g["dataset"],
                g["control_mode"],
                ", ".join(g["norm_heads"]) or "-",
                *_cells(g, names),
                g["recovered"],
            )
            for g in _highest_first(result["groups"], names)
        ]
        tail = ("#samples", "#non-finite")
        columns = ("dataset", "control mode", "norm head", *losses, *tail, "#mode recovered")
        console.print(table(columns, groups))
        heads = [
            (h["norm_key"], len(h["datasets"]), _number(h["weight"]), *_cells(h, names))
            for h in _highest_first(result["norm_heads"], names)
        ]
        everything = result["aggregate"]
        whole = ("aggregate", sum(len(h["datasets"]) for h in result["norm_heads"]), "")
        heads.append((*whole, *_cells(everything, names)))
        console.print(table(("norm head", "#datasets", "#weight", *losses, *tail), heads))
        _say_changes(console, report)
        _say_written(console, report.written)

    return render


def _say_changes(console: Console, report: LossReport) -> None:
    if report.report.changes is None:
        return
    shared = _shared_heads(report.report.result)
    changed = [
        c
        for c in report.report.changes
        if c.status != "same" and (c.scope != "norm_head" or c.norm_head in shared)
    ]
    console.print(table(
        ("change", "of", "", "loss", "#before", "#now", "#by"),
        [_change_cells(c) for c in changed[:MAX_CHANGES]],
        title="Since the earlier run, the worst first",
    ))  # fmt: skip
    if len(changed) > MAX_CHANGES:
        console.print(f"and {len(changed) - MAX_CHANGES:,} more: --csv or --json has them all")
    if report.worse is not None:
        console.print(f"{len(report.worse):,} losses rose by more than --fail-if-worse allows")


def _shared_heads(result: Losses) -> set[str]:
    """Return the heads of more than one group: the others' losses are their group's."""
    groups = Counter(head for group in result["groups"] for head in group["norm_heads"])
    return {head for head, n in groups.items() if n > 1}


def _change_cells(change: Change) -> Sequence[str]:
    place = {"group": change.dataset, "norm_head": change.norm_head, "aggregate": "aggregate"}
    by = _number(change.change) if change.relative is None else f"{change.relative:+.1%}"
    before, now = _number(change.before), _number(change.now)
    return (change.status, place[change.scope], change.control_mode, change.loss, before, now, by)


def _say_written(console: Console, outcomes: Iterable[Outcome]) -> None:
    for outcome in outcomes:
        console.print(f"{outcome.path}: {outcome.status}", markup=False, soft_wrap=True)


def _names(groups: Iterable[Losses]) -> list[str]:
    return sorted({name for group in groups for name in group["losses"]})


def _cells(entry: Losses, names: Sequence[str]) -> Sequence[object]:
    """Return the losses, the samples, and how many of those were left out as not finite."""
    broken = max((loss["non_finite"] for loss in entry["losses"].values()), default=0)
    samples = max((loss["samples"] for loss in entry["losses"].values()), default=0)
    return (*(_number(_loss(entry, name)) for name in names), samples, broken)


def _loss(entry: Losses, name: str) -> Any:
    return entry.get("total") if name == "total" else entry["losses"].get(name, {}).get("loss")


def _highest_first(entries: Iterable[Losses], names: Sequence[str]) -> list[Losses]:
    """Return the entries by their total, or else their first loss; those without one are last."""
    by = "total" if "total" in names else next(iter(names), "")

    def height(entry: Losses) -> float:
        value = _loss(entry, by)
        return -math.inf if value is None else float(value)

    return sorted(entries, key=height, reverse=True)


def _number(value: Any) -> str:
    return "-" if value is None else f"{float(value):.6g}"


def _span(start: int, stop: int) -> str:
    return f"{start:,} to {stop - 1:,}" if start < stop else "-"
