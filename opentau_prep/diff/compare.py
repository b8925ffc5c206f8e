"""The verb behind `diff`: two of a kind, and what moved, sorted by its effect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.diff.mixtures import diff_mixtures
from opentau_prep.diff.stats import Moved, diff_sources
from opentau_prep.diff.tokenizers import diff_tokenizers
from opentau_prep.errors import ConfigError, PrepError
from opentau_prep.forecast.sources import load_stats_source
from opentau_prep.metadata.jsonread import read_json_object
from opentau_prep.storage import open_storage

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.forecast.formulas import Formula

__all__ = ["Diff", "diff"]


@dataclass(frozen=True)
class Diff:
    """What moved between A and B.

    Attributes:
        kind: `mixtures`, `stats` or `tokenizers`.
        a: The first.
        b: The second.
        moved: The largest effect first; what has none last.
        notes: What could not be compared, in sentences.
    """

    kind: str
    a: str
    b: str
    moved: Sequence[Moved]
    notes: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the difference JSON-ready."""
        return {
            "kind": self.kind,
            "a": self.a,
            "b": self.b,
            "same": not self.moved,
            "moved": [each.as_json() for each in self.moved],
            "notes": list(self.notes),
        }


def diff(a: Path, b: Path, context: RunContext, *, formula: Formula | None = None) -> Diff:
    """Return what moved between two mixtures, two sources of stats, or two tokenizers.

    Args:
        a: A mixture's JSON file; stats of any origin that `forecast` reads; a tokenizer's folder.
        b: Another of that kind.
        context: Whether datasets of mixtures may be fetched, and where their artifacts are.
        formula: Whose formula normalizes; None: that of each source's trainer.

    Raises:
        ConfigError: They are of different kinds, or of none.
        PrepError: One of them cannot be read.
    """
    kinds = kind_of(a), kind_of(b)
    if kinds[0] != kinds[1]:
        raise ConfigError(
            f"are of different kinds: {kinds[0]} and {kinds[1]}", where=f"{a} and {b}"
        )
    notes: list[str] = []
    if kinds[0] == "mixtures":
        moved = diff_mixtures(a, b, context, notes)
    elif kinds[0] == "tokenizers":
        moved = diff_tokenizers(a, b, notes)
    else:
        moved = diff_sources(load_stats_source(a), load_stats_source(b), notes, formula)
    return Diff(kinds[0], str(a), str(b), sorted(moved, key=_order), notes)


def kind_of(path: Path) -> str:
    """Return what a path holds: `mixtures`, `tokenizers` or `stats`.

    Raises:
        ConfigError: There is nothing.
    """
    if not path.exists():
        raise ConfigError("does not exist", where=str(path))
    if path.is_dir():
        names = ("tokenizer.json", "processor_config.json")
        return "tokenizers" if any((path / name).is_file() for name in names) else "stats"
    if path.suffix == ".json":
        try:
            document = read_json_object(open_storage(path.parent), path.name)
        except PrepError:
            return "stats"  # whose reader says what is wrong with it
        if "dataset_mixture" in document or isinstance(document.get("datasets"), list):
            return "mixtures"
    return "stats"


def _order(each: Moved) -> tuple[float, str, str]:
    effect = -1.0 if each.effect is None else each.effect
    return (-math.inf if math.isnan(effect) else -effect, each.where, each.what)
