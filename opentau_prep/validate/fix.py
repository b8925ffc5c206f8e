"""What `--fix` does itself, without a frame or a judgement: counts, speed percentiles."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts.atomic import write_atomic
from opentau_prep.artifacts.provenance import sha256_of
from opentau_prep.artifacts.store import State
from opentau_prep.config.load import mixture_from_roots
from opentau_prep.errors import PrepError
from opentau_prep.metadata.info import INFO
from opentau_prep.metadata.resolve import ResolvedMixture
from opentau_prep.notices import collect_notices
from opentau_prep.speed import prepare_speed
from opentau_prep.speed.rows import SPEED_FILE, encode_rows
from opentau_prep.text import printable
from opentau_prep.validate.check import dataset_views
from opentau_prep.validate.checks.counts import true_counts

if TYPE_CHECKING:
    from opentau_prep.config.salvage import Salvage
    from opentau_prep.context import RunContext
    from opentau_prep.validate.view import DatasetView

__all__ = ["Fix", "apply_fix", "fix_datasets", "plan_fixes", "unified_diff"]

_INDENT = 4


@dataclass(frozen=True)
class Fix:
    """One file to be changed.

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

    def as_json(self) -> dict[str, Any]:
        """Return the fix JSON-ready."""
        return {
            "dataset": self.dataset,
            "file": str(self.path),
            "what": self.what,
            "diff": unified_diff(self),
        }


def fix_datasets(subject: Salvage, context: RunContext) -> list[Fix]:
    """Fix on the main rank what needs no judgement in each dataset; a dry run only plans."""
    _, views = dataset_views(subject, context)
    fixes = [fix for view in views for fix in plan_fixes(view, context)]
    if context.this_rank.is_main and not context.dry_run:
        for fix in fixes:
            apply_fix(fix)
    return fixes


def plan_fixes(view: DatasetView, context: RunContext) -> list[Fix]:
    """Return what can be fixed in a dataset; nothing is changed."""
    with collect_notices():
        info = _fix_info(view)
        return [*([] if info is None else [info]), *_renew_speed(view, context)]


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
    """Return the change as a unified diff, or a line that says what is added next to the file."""
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
    return Fix(view.name, path, f"corrected {', '.join(wrong)}", before, after)


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


def _renew_speed(view: DatasetView, context: RunContext) -> list[Fix]:
    """Return what is done to the speed percentiles, where that needs no judgement.

    Stale and unedited ones are recomputed; a file without provenance that holds exactly what would
    be computed is adopted. One that someone edited, or that differs and has no provenance, is left
    to its owner.
    """
    speed = view.artifacts.get(SPEED_FILE)
    if speed is None or speed.content is None or not isinstance(speed.path, Path):
        return []
    foreign = speed.state is State.FOREIGN
    if not foreign and speed.state is not State.STALE:
        return []
    whole = _whole_dataset(view)
    quiet = dataclasses.replace(context, force=True, dry_run=True, keep_going=False)
    try:
        rows = prepare_speed(whole, quiet).results[0].rows
    except PrepError:
        return []
    after = encode_rows(rows)
    if foreign and after != speed.content:
        return []
    what = "adopt: write its provenance" if foreign else "recomputed"
    wet = dataclasses.replace(context, force=not foreign, dry_run=False, keep_going=False)
    do = partial(prepare_speed, whole, wet)
    return [Fix(view.name, speed.path, what, speed.content, after, do)]


def _whole_dataset(view: DatasetView) -> ResolvedMixture:
    """Return the dataset without an entry's selection: its artifacts are everyone's."""
    mixture = mixture_from_roots([view.dataset.root])
    entry = replace(view.entries[0], index=0, name=view.name, config=mixture.datasets[0])
    return ResolvedMixture(mixture, (entry,), ())
