"""Write docs/rules.md from the catalogue of `validate`.

python scripts/make_rules_page.py [--check]
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

from written_page import write_or_check

from opentau_prep.validate.catalogue import all_rules
from opentau_prep.validate.rule import Rule

PAGE = Path(__file__).resolve().parents[1] / "docs/rules.md"
_HEAD = """# Rules of `validate`

`opentau-prep validate` reads metadata and the footers of the data files; rules marked *deep* need
`--deep`, which reads the frames once. Pick rules by the beginning of their codes:
`--select F,S017`, `--ignore C010`. This page is made by `scripts/make_rules_page.py`.

An **error** is what training would fail on or learn wrong numbers from; it makes the exit code 1. A
**warning** does so with `--strict`. A **note** never does.

The last line of each rule has the formats that it is looked for in, and the trainers that its words
name, in the versions that were read for it and with the formats that they read: LeRobot reads v3.0,
the LeRobot that openpi pins v2.0 and v2.1. openpi normalizes with its own `norm_stats.json`, so
rules on a dataset's stats hold for it only where they name it. "Any trainer": the rule is about the
data alone.
"""


def render(rules: tuple[Rule, ...]) -> str:
    """Return the page."""
    lines = [_HEAD]
    for group, members in groupby(rules, key=lambda rule: rule.group):
        lines.append(f"## {group[0].upper()}{group[1:]}\n")
        for rule in members:
            deep = ", *deep*" if rule.scope == "frames" else ""
            lines.append(f"### {rule.code} {rule.name}\n")
            lines.append(f"**{rule.severity}**{deep}. {rule.what}\n")
            lines.append(f"Why it matters: {rule.why}\n")
            lines.append(f"To fix it: {rule.fix}\n")
            lines.append(f"Holds for: {rule.holds_for}\n")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, render(all_rules())))
