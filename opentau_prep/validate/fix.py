"""Mends what needs no judgement and touches no frame: counts in info.json, artifacts' origins."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts.atomic import write_atomic
from opentau_prep.artifacts.provenance import sha256_of
from opentau_prep.metadata.info import INFO
from opentau_prep.notices import collect_notices
from opentau_prep.text import printable
from opentau_prep.validate.checks.counts import true_counts
from opentau_prep.validate.renew import plan_renewals
from opentau_prep.validate.view import DatasetView

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.validate.view import Target

__all__ = ["Fix", "apply_fix", "plan_fixes", "unified_diff"]

_INDENT = 4


@dataclass(frozen=True)
class Fix:
    """One file to be mended.

    Attributes:
        dataset: The dataset's name.
        path: The file.
        what: What is done to it, in a few words.
        before: Its content.
        after: What it will hold; the same as before where only provenance is added.
        carry_out: Does it where writing the content is not enough; None otherwise.
    """

    dataset: str
    path: Path
    what: str
    before: bytes
    after: bytes
    carry_out: Callable[[], object] | None = None

    def diff(self) -> str:
        """Return the change as a unified diff, or a line that says what is added."""
        return unified_diff(self)

    def as_json(self) -> dict[str, Any]:
        """Return the fix JSON-ready."""
        return {
            "dataset": self.dataset,
            "file": str(self.path),
            "what": self.what,
            "diff": unified_diff(self),
        }


def plan_fixes(target: Target, context: RunContext) -> list[Fix]:
    """Return what can be mended in a dataset; nothing is changed."""
    with collect_notices():
        view = DatasetView(target)
        fixes = [fix for fix in (_fix_info(view),) if fix is not None]
        renewals = plan_renewals(view, context)
    return fixes + [
        Fix(target.name, r.path, r.what, r.before, r.after, r.carry_out) for r in renewals
    ]


def apply_fix(fix: Fix) -> Path | None:
    """Carry out a fix; return where the old file is kept, if that was done here.

    Raises:
        ArtifactError: The file cannot be written.
    """
    if fix.carry_out is not None:
        fix.carry_out()
        return None
    backup = fix.path.with_name(f"{fix.path.name}.bak-{sha256_of(fix.before)[:8]}")
    write_atomic(backup, fix.before)
    write_atomic(fix.path, fix.after)
    return backup


def unified_diff(fix: Fix) -> str:
    """Return the change as a unified diff, or a line that says what is added beside the file."""
    if fix.before == fix.after:
        return f"# {printable(str(fix.path))}: {fix.what}\n"
    before, after = (_lines(content) for content in (fix.before, fix.after))
    name = printable(str(fix.path))
    return "".join(difflib.unified_diff(before, after, name, f"{name} ({fix.what})"))


def _lines(content: bytes) -> list[str]:
    lines = content.decode("utf-8", "replace").splitlines()
    return [printable(line) + "\n" for line in lines]


def _fix_info(view: DatasetView) -> Fix | None:
    if view.info is None:
        return None
    wanted = true_counts(view)
    wrong = {k: v for k, v in wanted.items() if view.info.get(k) != v}
    if not wrong:
        return None
    before = view.storage.read_bytes(INFO)
    after = _edited(before, view.info, wrong)
    folder = view.storage.folder
    if folder is None:
        return None
    path = folder / INFO
    return Fix(view.target.name, path, f"corrected {', '.join(wrong)}", before, after)


def _edited(before: bytes, info: Mapping[str, Any], changes: Mapping[str, Any]) -> bytes:
    """Change single values in the text where that is safe, so that the diff is small."""
    wanted = {**info, **changes}
    text = before.decode("utf-8-sig")
    for name, value in changes.items():
        pattern = rf'("{name}"\s*:\s*)(?:-?[0-9][0-9.eE+-]*|"[^"\\]*"|null|\{{[^{{}}]*\}})'
        match = re.search(pattern, text)
        if match is not None:
            text = text[: match.end(1)] + json.dumps(value) + text[match.end() :]
    try:
        if json.loads(text) == wanted:
            return text.encode("utf-8")
    except ValueError:
        pass
    return (json.dumps(wanted, indent=_INDENT, ensure_ascii=False) + "\n").encode("utf-8")
