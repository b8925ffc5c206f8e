"""Quantiles of a head from the merged sketches of its members' frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import MetadataError, PrepError
from opentau_prep.heads.members import VECTOR_FEATURES
from opentau_prep.notices import shorten_names, warn
from opentau_prep.pooling import is_quantile
from opentau_prep.storage.urls import shell_command
from opentau_prep.text import several

if TYPE_CHECKING:
    from opentau_prep.heads.build import Stats
    from opentau_prep.heads.members import HeadMember
    from opentau_prep.stats.sketch import QuantileSketch

__all__ = [
    "QuantileRanks",
    "head_sketches",
    "quantile_ranks",
    "warn_ranks",
    "with_sketch_quantiles",
]

QUANTILES = (("q01", 0.01), ("q10", 0.10), ("q50", 0.50), ("q90", 0.90), ("q99", 0.99))
TAILS = (("q01", 0.01), ("q99", 0.99))
# A q01 that is off by more is no longer between the 0.5 % and the 1.5 % quantile.
RANK_TOLERANCE = 0.005
# Quantiles pass through pooling and JSON; a value this close to an atom of the data is that atom.
_ROUNDING = 1e-6
# Stats of delta actions have the left edge of one of 5,000 bins, which may lie below an atom; and
# float32 rounds it.
_BIN = 1 / 4900
_SKETCH_FILE = "meta/quantile_sketch.json"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class QuantileRanks:
    """Which true quantile of its members' frames a head's pooled quantile is.

    Attributes:
        feature: `state` or `actions`.
        quantile: `q01` or `q99`.
        expected: The rank that it claims: 0.01 or 0.99.
        ranks: (D,) float64, the rank it has, the nearest one where the value occurs many times; NaN
            where there are no values.
    """

    feature: str
    quantile: str
    expected: float
    ranks: Floats

    @property
    def errors(self) -> Floats:
        """(D,) how far each rank is from the one claimed; 0 where there are no values."""
        return np.nan_to_num(np.abs(self.ranks - self.expected), nan=0.0)

    @property
    def dims_off(self) -> tuple[int, ...]:
        """The dims that are further off than half a percent."""
        return tuple(np.flatnonzero(self.errors > RANK_TOLERANCE).tolist())

    def as_json(self) -> dict[str, Any]:
        """Return the ranks JSON-ready."""
        return {
            "feature": self.feature,
            "quantile": self.quantile,
            "expected": self.expected,
            "ranks": self.ranks.tolist(),
            "dims_off": list(self.dims_off),
        }


def head_sketches(
    members: Sequence[HeadMember], *, artifact_root: Path | None = None, required: bool = False
) -> dict[str, dict[str, QuantileSketch]]:
    """Return norm key -> feature -> merged sketch of the kept dims, where all members have one.

    A sketch is of all episodes of a dataset; where members select among theirs, a notice says so.

    Args:
        members: All members of the mixture, in order.
        artifact_root: Where artifacts lie when not in the datasets.
        required: Whether a missing sketch is an error.

    Raises:
        MetadataError: A sketch is damaged; or one is missing and `required`: all datasets that lack
            one are listed.
    """
    by_key: dict[str, list[HeadMember]] = {}
    for member in members:
        by_key.setdefault(member.norm_key, []).append(member)
    merged: dict[str, dict[str, QuantileSketch]] = {}
    lacking: list[HeadMember] = []
    used: list[HeadMember] = []
    for key, group in by_key.items():
        parts = []
        for member in group:
            sketches = _member_sketches(member, artifact_root)
            if sketches is not None:
                parts.append(sketches)
            else:
                lacking.append(member)
                if not required:  # one that lacks them is enough: the others need no look
                    break
        if len(parts) == len(group):
            used += group
            merged[key] = {
                feature: parts[0][feature].merge(*(part[feature] for part in parts[1:]))
                for feature in VECTOR_FEATURES
            }
    if lacking and required:
        raise _lacking(sorted(lacking, key=lambda member: member.entry.index))
    _say_subsets([member for member in used if member.entry.is_subset])
    return merged


def quantile_ranks(
    stats: Stats, sketches: Mapping[str, QuantileSketch], *, binned: bool = False
) -> list[QuantileRanks]:
    """Return where the q01 and q99 of a head lie among its members' frames; absent ones left out.

    Args:
        stats: The head's pooled (or only) stats.
        sketches: Feature -> sketch of the dims that hold data.
        binned: Whether quantiles come from histograms, as those of delta actions.
    """
    found = []
    for feature, sketch in sketches.items():
        for quantile, expected in TAILS:
            values = stats[feature].get(quantile)
            if values is None:
                continue
            low, high = sketch.quantiles([0.0, 1.0])
            margin = (_BIN if binned else _ROUNDING) * (high - low)
            below = sketch.ranks(values[: len(low)] - margin)
            above = sketch.ranks(values[: len(low)] + margin)
            ranks = np.clip(np.full(len(low), expected), below, above)
            # A dim that never moves has every quantile at its one value.
            still = (high == low) & (np.abs(values[: len(low)] - low) <= _ROUNDING * np.abs(low))
            # Interpolated between two of few frames, it is off by up to one of them.
            near = np.abs(ranks - expected) <= 1 / np.maximum(sketch.count, 1)
            ranks = np.where(still | near, expected, ranks)
            found.append(QuantileRanks(feature, quantile, expected, ranks))
    return found


def warn_ranks(ranks: Mapping[str, Sequence[QuantileRanks]]) -> None:
    """Say once which heads have pooled quantiles that are not what their names claim.

    Args:
        ranks: Norm key -> the ranks of its pooled q01 and q99.
    """
    parts = []
    for key, found in ranks.items():
        if any(each.dims_off for each in found):
            worst = max(found, key=lambda each: float(each.errors.max()))
            dim = int(worst.errors.argmax())
            n_off = len({(each.feature, d) for each in found for d in each.dims_off})
            parts.append(
                f"{key} ({n_off} dims; {worst.quantile} of {worst.feature} {dim} is the"
                f" {worst.ranks[dim]:.1%} quantile)"
            )
    if parts:
        shown, suffix = shorten_names(parts)
        off = {key: [each.as_json() for each in found] for key, found in ranks.items()}
        warn(
            "pooled_quantile_rank",
            f"pooled q01 or q99 are off by more than {RANK_TOLERANCE:.1%} among the members' frames"
            f" in {several(len(parts), 'head')}, at worst: {', '.join(shown)}{suffix}. Use"
            " --quantiles sketch for the true ones",
            ranks={key: found for key, found in off.items() if any(e["dims_off"] for e in found)},
        )


def with_sketch_quantiles(stats: Stats, sketches: Mapping[str, QuantileSketch]) -> Stats:
    """Return a head's stats with q01, q10, q50, q90 and q99 read from sketches, zero-padded.

    Other quantiles are left out: nothing of the weighted mean remains.
    """
    out = dict(stats)
    for feature, sketch in sketches.items():
        values = sketch.quantiles([fraction for _, fraction in QUANTILES])
        width = len(stats[feature]["mean"])
        padded = np.zeros((len(values), width))
        padded[:, : values.shape[1]] = values
        kept = {s: v for s, v in stats[feature].items() if not is_quantile(s)}
        named = {name: row for (name, _), row in zip(QUANTILES, padded, strict=True)}
        out[feature] = {**kept, **named}
    return out


def _member_sketches(
    member: HeadMember, artifact_root: Path | None
) -> dict[str, QuantileSketch] | None:
    """Return the sketches of the dims that a member's state and actions keep; None if missing."""
    entry, config = member.entry, member.entry.config
    if artifact_root is None and not entry.meta.storage.exists(_SKETCH_FILE):
        return None  # without loading what reads sketches
    from opentau_prep.stats.load import load_sketches

    whole = load_sketches(entry.meta, name=entry.artifact_name, artifact_root=artifact_root)
    if whole is None:
        return None
    indices = {"state": config.state_index, "actions": config.action_index}
    found = {}
    for feature in VECTOR_FEATURES:
        column = member.entry.name_map.columns[feature]
        if member.delta is not None and feature == "actions":  # of selected columns already
            found[feature] = member.delta.sketch.select(range(member.kept_dims(feature)))
            continue
        if column not in whole:
            return None
        index = indices[feature]
        dims = list(range(whole[column].dims) if index is None else index)
        kept = dims[: member.kept_dims(feature)]
        if len(kept) < member.kept_dims(feature) or max(kept) >= whole[column].dims:
            again = shell_command("stats", [member.entry.meta.root], "--force")
            raise MetadataError(
                f"the sketch of {column!r} has {whole[column].dims} dims, its stats have more",
                where=member.name,
                hint=f"Recompute it: `{again}`.",
            )
        found[feature] = whole[column].select(kept)
    return found


def _lacking(members: Sequence[HeadMember]) -> PrepError:
    names = "".join(f"\n- {member.name}" for member in members)
    mixture = next((m.entry.config.file for m in members if m.entry.config.file), None)
    words = ["--mixture-json", mixture.absolute()] if mixture else []
    roots = [] if mixture else dict.fromkeys(m.entry.meta.root for m in members)
    return MetadataError(
        f"{len(members)} datasets have no {_SKETCH_FILE}, which --quantiles sketch needs:{names}",
        hint=f"Write them: `{shell_command('stats', roots, *words)}`.",
    )


def _say_subsets(members: Sequence[HeadMember]) -> None:
    if members:
        shown, suffix = shorten_names(member.name for member in members)
        warn(
            "sketch_of_all_episodes",
            "sketches are of all episodes, also where a selection is used:"
            f" {', '.join(shown)}{suffix}",
            datasets=[member.name for member in members],
        )
