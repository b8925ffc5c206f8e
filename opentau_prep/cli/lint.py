"""What the command `validate` does, step by step, between its options and its result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts.place import check_artifact_root
from opentau_prep.cli.command import Result
from opentau_prep.errors import ConfigError
from opentau_prep.storage import is_remote, safe_url
from opentau_prep.text import several
from opentau_prep.validate import CheckOptions, ValidateReport
from opentau_prep.validate import validate as run_rules
from opentau_prep.validate.catalogue import all_rules, find_rule, pick_rules
from opentau_prep.validate.formats import as_github, as_junit, as_sarif, as_text, explain_rule
from opentau_prep.validate.settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.artifacts.store import Outcome
    from opentau_prep.config.salvage import Salvage
    from opentau_prep.context import RunContext
    from opentau_prep.remake import Remade
    from opentau_prep.validate.fix import Fix
    from opentau_prep.validate.rule import Trainer

_HANG = 10
_WRAPPED = re.compile(rf"  (error|warning|note) | {{{_HANG}}}[^$ ]")

__all__ = ["LintOptions", "explain_result", "lint", "list_result", "render_report"]


@dataclass(frozen=True)
class LintOptions:
    """The command's own options; see its help."""

    deep: bool = False
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    strict: bool = False
    format: str = "text"
    write: bool = False
    baseline: Path | None = None
    write_baseline: bool = False
    fix: bool = False
    tokenizer: Path | None = None
    chunk_size: int | None = None
    max_tokens: int | None = None
    trainers: tuple[Trainer, ...] = ("opentau",)
    write_exclusions: Path | None = None


def lint(subject: Salvage, context: RunContext, options: LintOptions) -> Result:
    """Repair if asked to, check, and show."""
    _check_roots(subject, context, options)
    settings = load_settings(Path.cwd())
    fixes: list[Fix] = []
    remade: list[Remade] = []
    if options.fix:
        from opentau_prep.remake import remake_stale
        from opentau_prep.validate.fix import fix_datasets

        fixes = fix_datasets(subject, context)
        remade = remake_stale(subject, context, deep=options.deep or settings.deep)
    checks = CheckOptions(
        rules=pick_rules(options.select or settings.select, (*settings.ignore, *options.ignore)),
        deep=options.deep or settings.deep,
        tokenizer=options.tokenizer,
        chunk_size=options.chunk_size,
        max_tokens=options.max_tokens,
        trainers=options.trainers,
    )
    report = _without_ignored(run_rules(subject, context, checks), settings)
    written = _write(subject, report, context) if options.write else []
    baseline = options.baseline or settings.baseline
    if baseline is not None and options.write_baseline:
        if not context.dry_run:
            from opentau_prep.validate.settings import write_baseline

            write_baseline(baseline, report)
        report = report.without(frozenset(f.fingerprint for f in report.findings))
    elif baseline is not None:
        from opentau_prep.validate.settings import read_baseline

        report = report.without(read_baseline(baseline))
    payload: dict[str, Any] = report.as_json()
    if options.fix:
        payload["fixes"] = [fix.as_json() for fix in fixes]
        payload["made_again"] = [{**m.plan.as_json(), "problems": m.problems} for m in remade]
    if options.write_exclusions is not None:
        from opentau_prep.validate.exclusions import episodes_to_exclude, write_exclusions

        outcome = write_exclusions(options.write_exclusions, report, subject, context)
        payload["exclusions"] = {
            "path": str(outcome.path),
            "status": outcome.status,
            "excluded": episodes_to_exclude(report),
        }
    if options.write:
        payload["written"] = [{"path": str(o.path), "status": o.status} for o in written]
    exit_code = report.exit_code(strict=options.strict or settings.strict)
    exit_code = max(exit_code, int(any(made.problems for made in remade)))
    note = _excluded_note(payload.get("exclusions"))
    drawn = _Drawn(report, options.format, fixes, remade, context.dry_run, note)
    return Result(payload, drawn, exit_code)


def _write(subject: Salvage, report: ValidateReport, context: RunContext) -> list[Outcome]:
    from opentau_prep.validate.persist import write_findings

    return write_findings(report, context, subject.mixture)


def _check_roots(subject: Salvage, context: RunContext, options: LintOptions) -> None:
    """Refuse at once what would write into a store."""
    roots = () if subject.mixture is None else subject.mixture.roots
    if options.write:
        check_artifact_root(roots, context.artifact_root)
    stored = next((root for root in roots if is_remote(root)), None)
    if options.fix and stored is not None:
        raise ConfigError(
            "--fix changes files in place, and nothing is written into a store",
            where=safe_url(stored),
            hint="Repair a copy of the dataset, and upload that.",
        )


def _without_ignored(report: ValidateReport, settings: Settings) -> ValidateReport:
    kept = [finding for finding in report.findings if not settings.ignores(finding)]
    return replace(report, findings=kept)


def _excluded_note(exclusions: Mapping[str, Any] | None) -> str:
    if exclusions is None:
        return ""
    count = sum(map(len, exclusions["excluded"].values()))
    verb = "is" if count == 1 else "are"
    where = f"{exclusions['path']} ({exclusions['status']})"
    return f"{several(count, 'episode')} {verb} excluded in {where}."


@dataclass(frozen=True)
class _Drawn:
    report: ValidateReport
    format: str
    fixes: list[Fix]
    remade: list[Remade]
    dry_run: bool
    note: str = ""

    def plain(self) -> str:
        if self.format != "text":
            draw = {"github": as_github, "junit": as_junit, "sarif": as_sarif}[self.format]
            return draw(self.report)
        lines = []
        if self.fixes:
            from opentau_prep.validate.fix import unified_diff

            lines += [unified_diff(fix) for fix in self.fixes]
        for made in self.remade:
            lines += [f"# {made.plan.step} again: {reason}" for reason in made.plan.reasons]
            lines += [f"# {made.plan.step} not made: {problem}" for problem in made.problems]
        if (self.fixes or self.remade) and self.dry_run:
            lines.append("Nothing was changed (--dry-run).\n")
        lines.append(as_text(self.report))
        return "\n".join([*lines, self.note] if self.note else lines)

    def __call__(self, console: Console) -> None:
        if self.format == "text":
            _Text(self.plain())(console)
        else:
            console.out(self.plain(), highlight=False)


def render_report(report: ValidateReport) -> _Text:
    """Return what draws a report for people."""
    return _Text(as_text(report))


@dataclass(frozen=True)
class _Text:
    text: str

    def plain(self) -> str:
        return self.text

    def __call__(self, console: Console) -> None:
        from rich.text import Text

        shown = Text(self.text)
        shown.highlight_regex(r"(?m)^  error  ", "red")
        shown.highlight_regex(r"(?m)^  warning", "bold")
        shown.highlight_regex(r"(?m)^\S.*$", "bold")
        for line in shown.split("\n"):
            # On a terminal; what is pasted stays whole.
            if console.is_terminal and _WRAPPED.match(line.plain):
                first, *more = line.wrap(console, max(20, console.width - _HANG))
                line = Text("\n").join([first, *(Text(" " * _HANG) + each for each in more)])
            console.print(line, soft_wrap=True)


def list_result() -> Result:
    """Return the catalogue."""
    rules = all_rules()
    lines = [f"{r.code}  {r.severity:<7}  {r.name}{_deep_mark(r.scope)}" for r in rules]
    return Result({"rules": [r.as_json() for r in rules]}, _Text("\n".join(lines)))


def _deep_mark(scope: str) -> str:
    return "  (--deep)" if scope == "frames" else ""


def explain_result(code: str) -> Result:
    """Return all there is to say of a rule."""
    rule = find_rule(code)
    return Result({"rule": rule.as_json()}, _Text(explain_rule(rule)))
