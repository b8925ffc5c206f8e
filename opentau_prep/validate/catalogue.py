"""Every rule there is, and picking among them by code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from opentau_prep.errors import ConfigError
from opentau_prep.validate.checks import (
    artifacts,
    behaviour,
    columns,
    counts,
    episodes,
    format,
    frames,
    heads,
    mixture,
    outputs,
    recomputed,
    selection,
    stats,
    tasks,
    timestamps,
    tokenizer,
    trainers,
    values,
    videos,
)
from opentau_prep.validate.findings import Hit
from opentau_prep.validate.rule import GROUPS, Rule, Trainer

__all__ = ["NOT_CHECKED", "all_rules", "find_rule", "pick_rules", "rules_for"]

_MODULES = (
    format,
    counts,
    episodes,
    columns,
    frames,
    behaviour,
    timestamps,
    videos,
    trainers,
    stats,
    values,
    recomputed,
    tasks,
    artifacts,
    mixture,
    outputs,
    selection,
    heads,
    tokenizer,
)


def _never(view: object) -> Iterator[Hit]:
    """Yield nothing: the runner itself reports what it could not check."""
    yield from ()


NOT_CHECKED = Rule(
    "X001",
    "not-checked",
    "error",
    "A dataset could not be checked to the end.",
    "Whatever the remaining rules would report is not known.",
    "Run again with --verbose; a fault of the tool is worth a report.",
    _never,
)


@cache
def all_rules() -> tuple[Rule, ...]:
    """Return every rule, by group and code."""
    rules = [NOT_CHECKED, *(rule for module in _MODULES for rule in module.RULES)]
    order = list(GROUPS)
    return tuple(sorted(rules, key=lambda rule: (order.index(rule.code[0]), rule.code)))


def rules_for(
    trainers: Sequence[Trainer] = ("opentau",), rules: Sequence[Rule] = ()
) -> tuple[Rule, ...]:
    """Return the rules (of those given, or of all) that hold for datasets of these trainers."""
    return tuple(
        rule
        for rule in rules or all_rules()
        if not rule.trainers or set(rule.trainers) & set(trainers)
    )


@cache
def _by_name() -> Mapping[str, Rule]:
    return {name: rule for rule in all_rules() for name in (rule.name, rule.code)}


def pick_rules(select: Sequence[str] = (), ignore: Sequence[str] = ()) -> tuple[Rule, ...]:
    """Return the rules whose code begins with a selected prefix and with no ignored one.

    As in ruff, the longer prefix wins: `--select D005 --ignore D` keeps D005. Names count as codes.

    Args:
        select: Prefixes such as `F`, `S01`, `S017`, `ALL`; none for all.
        ignore: Prefixes to leave out.

    Raises:
        ConfigError: A prefix fits no rule.
    """
    chosen = [_prefix(text, "--select") for text in select] or [""]
    ignored = [_prefix(text, "--ignore") for text in ignore]
    return tuple(rule for rule in all_rules() if _longest(rule, chosen) > _longest(rule, ignored))


def find_rule(code: str) -> Rule:
    """Return the rule of a code or name.

    Raises:
        ConfigError: There is none.
    """
    rule = _by_name().get(code) or _by_name().get(code.upper()) or _by_name().get(code.lower())
    if rule is not None:
        return rule
    raise ConfigError(f"there is no rule {code!r}", hint="`validate --list` shows them all.")


def _prefix(text: str, option: str) -> str:
    wanted = text.strip()
    if wanted.upper() == "ALL":
        return ""
    for rule in all_rules():
        if rule.code.startswith(wanted.upper()) and wanted:
            return wanted.upper()
        if rule.name == wanted.lower():
            return rule.code
    raise ConfigError(
        f"no rule's code begins with {text!r}", where=option, hint="`validate --list` shows them."
    )


def _longest(rule: Rule, prefixes: Sequence[str]) -> int:
    return max((len(p) for p in prefixes if rule.code.startswith(p)), default=-1)
