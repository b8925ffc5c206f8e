"""Stale artifacts that can be recomputed, and foreign ones that turn out to be right."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from opentau_prep.config.load import mixture_from_roots
from opentau_prep.errors import PrepError
from opentau_prep.metadata.dataset import Dataset
from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture
from opentau_prep.speed import prepare_speed
from opentau_prep.speed.rows import SPEED_FILE, encode_rows

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.validate.view import DatasetView

__all__ = ["Renewal", "plan_renewals"]


@dataclass(frozen=True)
class Renewal:
    """One artifact to be recomputed or adopted.

    Attributes:
        path: The artifact.
        what: What is done.
        before: Its bytes.
        after: Its bytes afterwards.
        carry_out: Does it; the old file is kept.
    """

    path: Path
    what: str
    before: bytes
    after: bytes
    carry_out: Callable[[], object]


def plan_renewals(view: DatasetView, context: RunContext) -> list[Renewal]:
    """Return what can be renewed without judgement.

    A our file that is stale and unedited is recomputed; one without provenance that holds
    exactly what would be computed is adopted. A file that someone edited, or that differs and has
    no provenance, is left to its owner.
    """
    speed = next((f for f in view.artifacts if f.rel == SPEED_FILE), None)
    home = None if speed is None else speed.home.folder
    if speed is None or home is None or speed.content is None or speed.edited:
        return []
    foreign = speed.provenance is None
    if not foreign and not speed.changes:
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
    what = "adopt: write its provenance" if foreign else "computed again"
    wet = dataclasses.replace(context, force=not foreign, dry_run=False, keep_going=False)
    return [
        Renewal(home / speed.rel, what, speed.content, after, partial(prepare_speed, whole, wet))
    ]


def _whole_dataset(view: DatasetView) -> ResolvedMixture:
    """Return the dataset without an entry's selection: its artifacts are everyone's."""
    mixture = mixture_from_roots([view.target.root])
    config = mixture.datasets[0]
    dataset = Dataset(view.target.root, view.target.repo_id, view.target.name, view.meta)
    return ResolvedMixture(mixture, (ResolvedEntry(0, view.target.name, config, dataset),), ())
