"""The outcome of `run` for people: a line per step, what is left to do, and the verdict."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from opentau_prep.cli.console import SafeConsole
from opentau_prep.cli.session import PIPE_WIDTH
from opentau_prep.cli.tables import Render, speed_table
from opentau_prep.cli.verdict_lines import say, say_command, show_to_do
from opentau_prep.text import several

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.heads.report import HeadsReport
    from opentau_prep.pipeline import PipelineResult, StepOutcome
    from opentau_prep.speed import SpeedReport
    from opentau_prep.stats.report import StatsReport
    from opentau_prep.tokenizer.report import TokenizerReport
    from opentau_prep.validate import ValidateReport

__all__ = ["run_tables", "run_text", "shown_again"]

_MAX_ERRORS = 5
_NUMBERED = ("stats", "speed-percentiles")
_FRESH = ("up to date", "kept", "subset", "quantiles kept")


def run_tables(done: PipelineResult, *, verbose: bool = False) -> Render:
    """Return what draws the outcome of `run`; with `verbose`, each step as its command shows it."""

    def render(console: Console) -> None:
        _show_steps(console, done, verbose=verbose)
        if done.stopped:
            _show_stop(console, done)
        elif done.verdict is not None:
            show_to_do(console, done.verdict)
        if done.training_must_hold and not done.needs_attention:
            held = ", ".join(f"{key} {value}" for key, value in done.training_must_hold.items())
            say(console, f"\nThe training config must hold: {held}")
        if done.verdict is not None:
            _show_verdict(console, done)

    return render


def run_text(done: PipelineResult) -> str:
    """Return the outcome of `run` as text, a line for each that a pipe gets."""
    text = io.StringIO()
    run_tables(done)(SafeConsole(file=text, width=PIPE_WIDTH))
    return text.getvalue()


def shown_again(text: str) -> Render:
    """Return what draws a text of `run_text`, its lines wrapped to fit a terminal."""

    def render(console: Console) -> None:
        for line in text.removesuffix("\n").split("\n"):
            words = line.lstrip(" ")
            indent = len(line) - len(words)
            if words.startswith("$ "):
                say_command(console, words[2:], indent=indent)
            else:
                say(console, words, indent=indent)

    return render


def _show_steps(console: Console, done: PipelineResult, *, verbose: bool) -> None:
    before: list[str] = []
    for outcome in done.outcomes:
        summary = _summary(outcome)
        say(console, f"{outcome.name:<18} {'likewise' if summary in before else summary}")
        if outcome.name not in _NUMBERED:  # the same fault may be in the way of several
            before.append(summary)
        if verbose:
            _tables(outcome)(console)
    if done.verdict is None:
        _show_errors(console, done.outcomes)


def _show_stop(console: Console, done: PipelineResult) -> None:
    for each in done.by_hand[:_MAX_ERRORS]:
        say(console, f"\nFirst, by hand: {each.what}: {'; '.join(each.details)}")
    if done.by_hand and not done.commands:  # a part of a dataset: a finding says which
        say(console, "Stopped before the norm heads.")
        return
    perhaps = " That may come of the above." if done.by_hand else ""
    say(console, f"\nStopped before the norm heads: {done.stopped}.{perhaps}")
    for command in done.commands:
        say_command(console, command)


def _show_verdict(console: Console, done: PipelineResult) -> None:
    verdict = done.verdict
    if verdict is None or done.stopped:
        say(console, "Not ready.")
        return
    if verdict.ready and all(map(_is_fresh, done.outcomes)):
        say(console, "Nothing to do: everything is up to date.")
    for command in done.commands:
        say(console, "Next, what the policy will see:")
        say_command(console, command)
    say(console, verdict.words)


def _show_errors(console: Console, outcomes: Sequence[StepOutcome]) -> None:
    """Print the errors that `validate` found, where no verdict lists them."""
    from opentau_prep.validate import ValidateReport

    found = [o.report.findings for o in outcomes if isinstance(o.report, ValidateReport)]
    errors = [each for findings in found for each in findings if each.severity == "error"]
    for each in errors[:_MAX_ERRORS]:
        say(console, f"{each.code} {each.dataset}: {each.message}: {each.advice}", indent=2)


def _is_fresh(outcome: StepOutcome) -> bool:
    return all(status in _FRESH for status in _statuses(outcome.report))


def _statuses(report: Any) -> Iterable[str]:
    from opentau_prep.heads.report import HeadsReport
    from opentau_prep.speed import SpeedReport
    from opentau_prep.stats.report import StatsReport
    from opentau_prep.tokenizer.report import TokenizerReport

    if isinstance(report, HeadsReport):
        return [file.status for file in (*report.files, report.out) if file is not None]
    if isinstance(report, StatsReport | SpeedReport):
        return [result.status for result in report.results]
    if isinstance(report, TokenizerReport):
        return [report.status]
    return []


def _summary(outcome: StepOutcome) -> str:
    from opentau_prep.pipeline import NotDone, SkippedInDryRun

    report: Any = outcome.report
    if isinstance(report, SkippedInDryRun):
        return f"not shown, as this would stop it now: {report.error}"
    if isinstance(report, NotDone):
        return f"not done: {report.error}"
    summaries: dict[str, Callable[[Any], str]] = {
        "stats": _stats,
        "heads": _heads,
        "speed-percentiles": _speed,
        "fit-tokenizer": _tokenizer,
        "validate": _validate,
    }
    failures = [f"failed {each.label}: {each.error}" for each in report.failures]
    return "\n".join([summaries[outcome.name](report), *failures])


def _counted(statuses: Iterable[str]) -> str:
    return ", ".join(f"{n:,} {status}" for status, n in Counter(statuses).items())


def _stats(report: StatsReport) -> str:
    return f"{several(len(report.results), 'dataset')}: {_counted(_statuses(report))}"


def _heads(report: HeadsReport) -> str:
    where = "" if report.out is None else f" · {report.out.path}"
    return f"{several(len(report.summaries), 'head')}: {_counted(_statuses(report))}{where}"


def _speed(report: SpeedReport) -> str:
    return f"{several(len(report.results), 'dataset')}: {_counted(_statuses(report))}"


def _tokenizer(report: TokenizerReport) -> str:
    lengths = report.document.get("token_lengths", {}).get("total", {})
    parts = f" · {lengths['mean']:.1f} tokens per chunk on average" if "mean" in lengths else ""
    return f"{report.status}{parts} · {report.out_dir}"


def _validate(report: ValidateReport) -> str:
    counts = ", ".join(several(n, severity) for severity, n in report.counts.items() if n)
    return counts or "no findings"


def _tables(outcome: StepOutcome) -> Render:
    from opentau_prep.cli.fit_tokenizer_tables import tokenizer_tables
    from opentau_prep.cli.heads_tables import heads_tables
    from opentau_prep.cli.lint import render_report
    from opentau_prep.cli.stats_tables import stats_table
    from opentau_prep.pipeline import NotDone, SkippedInDryRun

    report: Any = outcome.report
    if isinstance(report, SkippedInDryRun | NotDone):
        return lambda console: None
    drawn: dict[str, Callable[[Any], Render]] = {
        "stats": stats_table,
        "heads": heads_tables,
        "speed-percentiles": speed_table,
        "fit-tokenizer": tokenizer_tables,
        "validate": render_report,
    }
    return drawn[outcome.name](report)
