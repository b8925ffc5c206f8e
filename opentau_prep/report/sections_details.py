"""The sections on heads, speed, tokenizer, findings, losses and notices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentau_prep.notices import some_names
from opentau_prep.report.markup import Element, Node, el
from opentau_prep.report.svg import bars, range_picture
from opentau_prep.report.tables import badge, bullets, count, number, percent, table
from opentau_prep.text import several
from opentau_prep.verdict.details import (
    DimFacts,
    HeadFacts,
    SpeedFacts,
    TaskFacts,
    TokenGroup,
    TokenizerFacts,
)
from opentau_prep.verdict.facts import Verdict

__all__ = [
    "heads_section",
    "losses_section",
    "notices_section",
    "speed_section",
    "tokenizer_section",
    "validation_section",
]

_OPEN = 6
_BINS = 24
_BUCKETS = [str(bucket) for bucket in range(0, 101, 10)]
_SELECTED = (
    "Members select among their episodes; where pooled quantiles lie is told of all their episodes."
)
_TESTED = {
    "all": "tested for every known fault",
    "units": "too few members to test for more than wrong units and orders of names",
    "none": "one member: nothing to compare with",
}


def heads_section(facts: Verdict) -> Node:
    """Return every head's dims as pictures and numbers."""
    heads = facts.heads
    if heads.fault is not None:
        return el("p", badge("no heads", "do"), f" {heads.fault}")
    columns = ("head", "#row", "#members", "#frames", "#state / action dims", "~audit")
    tested = heads.tested or {}
    rows = (_head_row(head, tested.get(head.key, "")) for head in heads.heads)
    return [
        el("p", "As they are made of the stats that are there now, not as they lie in files."),
        table("Norm heads", columns, rows),
        _audit(heads.audit),
        el(
            "p",
            "Each picture is drawn on the dim's own range, which min-max normalization maps to"
            " -1..1: ends are min and max, the band q01 to q99, the bar mean ± std, the dashed"
            " line 0.",
            class_="dim small",
        ),
        [_head(head, opened=len(heads.heads) <= _OPEN) for head in heads.heads],
    ]


def _head_row(head: HeadFacts, tests: str) -> Sequence[Node]:
    key: Node = [head.key, " ", badge("fallback", "look")] if head.fallback else head.key
    dims = f"{len(head.state)} / {len(head.actions)}"
    audit = _TESTED.get(tests, "-")
    return (key, head.row, len(head.members), count(head.frames), dims, audit)


def _audit(findings: Sequence[str]) -> Node:
    if not findings:
        return el("p", "The audit finds no member that does not belong to its head.")
    return [el("h3", "Members that may not belong"), bullets(findings)]


def _head(head: HeadFacts, *, opened: bool) -> Element:
    off = sum(bool(dim.notes or dim.zero_range) for dim in (*head.state, *head.actions))
    more: Node = [" ", badge(f"{several(off, 'dim')} with notes", "look")] if off else None
    members = f" · {several(len(head.members), 'member')}, {count(head.frames)} frames"
    return el(
        "details",
        el("summary", head.key, el("span", members, class_="dim"), more),
        el("p", f"Members: {', '.join(head.members)}", class_="dim small"),
        el("p", _SELECTED, class_="dim small") if head.selected and off else None,
        _dims(f"{head.key}: state", head.state),
        _dims(f"{head.key}: actions", head.actions),
        open=opened,
    )


def _dims(caption: str, dims: Sequence[DimFacts]) -> Element:
    columns = ("#dim", "name", "#min", "range", "#max", "#mean", "#std", "#q01", "#q99", "~notes")
    rows = (
        (
            d.dim,
            d.name or "-",
            number(d.min),
            range_picture(d),
            number(d.max),
            number(d.mean),
            number(d.std),
            number(d.q01),
            number(d.q99),
            _notes(d),
        )
        for d in dims
    )
    return table(caption, columns, rows)


def _notes(dim: DimFacts) -> Node:
    still: Node = [badge("never moves", "look"), " "] if dim.zero_range else None
    return [still, "; ".join(dim.notes)]


def speed_section(facts: Verdict) -> Node:
    """Return each dataset's tasks with percentiles and buckets."""
    columns = ("dataset", "#tasks", "#without percentiles", "~notes")
    rows = ((", ".join(s.datasets), s.n_tasks, s.n_sparse, _speed_notes(s)) for s in facts.speed)
    return [
        el(
            "p",
            "A task with fewer than ten distinct episode lengths has no percentiles: all its"
            " episodes get bucket 50. The bars count the selected episodes by bucket, 0 (fewest"
            " frames) to 100.",
        ),
        table("Speed percentiles by dataset", columns, rows),
        [_speed(each, opened=len(facts.speed) <= _OPEN) for each in facts.speed if each.tasks],
    ]


def _speed_notes(each: SpeedFacts) -> Node:
    told = []
    if each.fault is not None:
        told.append(each.fault)
    if each.without_row:
        told.append(f"no row for task {some_names(each.without_row)}")
    if each.unresolved:
        told.append(f"the tables do not tell the task of {each.unresolved:,} episodes")
    return "; ".join(told) or "-"


def _speed(each: SpeedFacts, *, opened: bool) -> Element:
    columns = ("#task", "~text", "#episodes", "#p5", "#p25", "#p45", "#p55", "#p75", "#p95",
               "buckets of selected episodes")  # fmt: skip
    name = ", ".join(each.datasets)
    hidden = each.n_tasks - len(each.tasks)
    return el(
        "details",
        el("summary", name, el("span", f" · {several(each.n_tasks, 'task')}", class_="dim")),
        table(f"{name}: episode lengths in frames", columns, map(_task, each.tasks)),
        el("p", f"and {several(hidden, 'task')} with fewer episodes", class_="dim")
        if hidden
        else None,
        open=opened,
    )


def _task(task: TaskFacts) -> Sequence[Node]:
    told = ", ".join(
        f"bucket {bucket}: {n}" for bucket, n in zip(_BUCKETS, task.buckets, strict=True) if n
    )
    picture = bars(task.buckets, _BUCKETS, told, height=24, wide=14)
    if task.percentiles is None:
        shown: list[Node] = [badge("sparse", "none"), *["-"] * 5]
    else:
        shown = [f"{task.percentiles[i]:.1f}" for i in (0, 2, 4, 5, 7, 9)]
    return (task.task_index, task.task, task.n_episodes, *shown, picture)


def tokenizer_section(facts: Verdict) -> Node:
    """Return what the fit's report says of sizes, lengths and truncation."""
    tokenizer = facts.tokenizer
    path = el("p", el("code", tokenizer.path))
    if tokenizer.settings is None or not tokenizer.groups:
        return [path, el("p", badge("nothing to show", "do"), f" {tokenizer.fault}")]
    rows = ((name.replace("_", " "), _setting(v)) for name, v in tokenizer.settings.items())
    return [
        path,
        _histogram(tokenizer),
        _lengths(tokenizer),
        table("Sizes and options of the fit", ("setting", "~value"), rows),
    ]


def _setting(value: Any) -> str:
    if value is None:
        return "any"
    if isinstance(value, (bool, str)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else number(float(value), 3)


def _lengths(tokenizer: TokenizerFacts) -> Element:
    limit = tokenizer.limit
    last = (
        ("#keeps 99 %", "#keeps 99.9 %", "#keeps all") if limit is None else (f"#over {limit:,}",)
    )
    columns = ("whose", "scope", "#chunks", "#mean", "#p50", "#p95", "#p99", "#max", *last)
    rows = (_group(group, limit is None) for group in tokenizer.groups)
    return table(f"Tokens a chunk, measured on {tokenizer.measured_on}", columns, rows)


def _group(group: TokenGroup, keeps: bool) -> Sequence[Node]:
    cells = (group.mean, group.p50, group.p95, group.p99)
    ends = [group.keeps.get(share) for share in ("0.99", "0.999", "1")]
    last = [count(end) for end in ends] if keeps else [percent(group.truncated)]
    shown = [f"{value:.1f}" for value in cells]
    return (group.name, group.scope, count(group.n_chunks), *shown, count(group.max), *last)


def _histogram(tokenizer: TokenizerFacts) -> Node:
    counts = {int(length): n for length, n in (tokenizer.histogram or {}).items()}
    if not counts:
        return None
    low, high = min(counts), max(counts)
    width = max(1, -(-(high - low + 1) // _BINS))
    bins = [0] * (-(-(high - low + 1) // width))
    for length, n in counts.items():
        bins[(length - low) // width] += n
    labels = [str(low + i * width) for i in range(len(bins))]
    limit = tokenizer.limit
    total = tokenizer.groups[0]
    told = (
        f"Histogram of tokens a chunk: half have at most {total.p50:g}, 99 % at most {total.p99:g}."
    )
    cut = None if limit is None else (limit + 1 - low) / width
    return [
        el("p", told, class_="dim small"),
        bars(bins, labels, told, height=90, cut=cut),
    ]


def validation_section(facts: Verdict) -> Node:
    """Return the findings that are on record."""
    found = facts.validation
    told = ", ".join(several(n, severity) for severity, n in found.counts.items())
    checked = f"{several(found.checked, 'dataset')} checked ({found.deep:,} with their frames)"
    lines: list[Node] = [
        el(
            "p",
            f"{checked}: {told}."
            " Findings about the mixture itself are not kept on disk; validate shows them.",
        )
    ]
    if found.unchecked:
        lines.append(el("p", f"No findings on record: {some_names(found.unchecked)}."))
    if found.findings:
        columns = ("code", "severity", "dataset", "~place", "~finding", "~what to do")
        level = {"error": "do", "warning": "look", "note": "none"}
        rows = (
            (f.code, badge(f.severity, level[f.severity]), f.dataset, f.place, f.message, f.hint)
            for f in found.findings
        )
        lines.append(table("Findings, the worst first", columns, rows))
    if found.n_hidden:
        lines.append(el("p", f"and {found.n_hidden:,} more", class_="dim"))
    return lines


def losses_section(facts: Verdict) -> Node:
    """Return the validation pass and the losses, as far as there are files."""
    losses = facts.losses
    if losses.plan is None and losses.rows is None:
        return el(
            "p", "No plan and no losses were named or found; training needs neither to start."
        )
    plan = None
    if losses.plan is not None:
        rows = ((name.replace("_", " "), _setting(v)) for name, v in losses.plan.items())
        plan = table("Validation plan", ("setting", "~value"), rows)
    report = None
    if losses.rows is not None:
        columns = ("scope", "dataset", "control mode", "norm head", "loss", "#value", "#samples",
                   "#non-finite")  # fmt: skip
        report = table("Validation losses", columns, map(_loss, losses.rows))
    worse = [el("h3", "Worse than in the earlier run"), bullets(losses.changes)]
    return [plan, report, worse if losses.changes else None]


def _loss(row: Mapping[str, Any]) -> Sequence[Node]:
    value = row["value"]
    return (
        row["scope"].replace("_", " "),
        row["dataset"] or "-",
        row["control_mode"] or "-",
        row["norm_head"] or "-",
        row["loss"],
        value if isinstance(value, str) else number(value, 6),
        count(row["samples"]),
        count(row["non_finite"]),
    )


def notices_section(facts: Verdict) -> Node:
    """Return all that the library had to say."""
    if not facts.notices:
        return el("p", "None.")
    rows = ((str(notice["kind"]), str(notice["message"])) for notice in facts.notices)
    return table("What reading metadata and artifacts gave rise to", ("kind", "~message"), rows)
