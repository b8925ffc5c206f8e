"""The validation pass of a whole mixture: which rows of which dataset, on which rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from opentau_prep import notices
from opentau_prep.errors import ConfigError, DataError
from opentau_prep.val_loss.plan import ValidationPlan, plan_validation
from opentau_prep.val_loss.subset import subset_size, validation_subset

__all__ = ["MixtureValidation", "ValidationSet", "plan_mixture_validation"]

_NAMES_SHOWN = 10


@dataclass(frozen=True)
class ValidationSet:
    """One dataset's part in validation.

    Attributes:
        name: Mixture-level name.
        n_frames: Frames of its selected episodes.
        val_split_ratio: The dataset's own ratio, or the mixture's.
    """

    name: str
    n_frames: int
    val_split_ratio: float

    @property
    def n_samples(self) -> int:
        """Frames held out for validation."""
        return subset_size(self.n_frames, self.val_split_ratio, self.name)

    def rows(self, seed: int) -> NDArray[np.int64]:
        """Return the held-out rows among the selected frames, ascending, (n_samples,) int64."""
        return validation_subset(self.n_frames, self.val_split_ratio, seed, self.name)


@dataclass(frozen=True)
class MixtureValidation:
    """A validation plan together with the sets that it runs over.

    Attributes:
        sets: The mixture's validation sets, in mixture order.
        seed: The seed that chose their rows.
        plan: The plan over their lengths.
    """

    sets: tuple[ValidationSet, ...]
    seed: int
    plan: ValidationPlan

    def rows(self, rank: SupportsIndex) -> list[tuple[str, NDArray[np.int64]]]:
        """Return what one rank evaluates: (dataset, its rows among the selected frames), in order.

        Raises:
            ConfigError: There is no such rank.
        """
        start, stop = self.plan.span(rank)
        work, offset = [], 0
        for part in self.sets:
            low, high = max(start - offset, 0), min(stop - offset, part.n_samples)
            if low < high:
                work.append((part.name, part.rows(self.seed)[low:high]))
            offset += part.n_samples
        return work

    def as_json(self) -> dict[str, Any]:
        """Return plan and sets as a JSON-ready mapping."""
        plan = self.plan.as_json()
        offsets = plan.pop("offsets")
        del plan["lengths"]
        plan["seed"] = self.seed
        plan["datasets"] = [
            {
                "name": part.name,
                "selected_frames": part.n_frames,
                "val_split_ratio": part.val_split_ratio,
                "samples": part.n_samples,
                "offset": offset,
            }
            for part, offset in zip(self.sets, offsets, strict=True)
        ]
        return plan


def plan_mixture_validation(
    sets: Sequence[ValidationSet], *, world_size: int, batch_size: int, seed: int = 0
) -> MixtureValidation:
    """Return the validation pass of a mixture.

    A dataset whose ratio leaves it no frame is warned about, once for all: its losses will be
    absent.

    Raises:
        ConfigError: An argument is out of range, or two sets share a name (and so their rows).
        DataError: No dataset has a validation frame.
    """
    names = [part.name for part in sets]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{', '.join(doubled)} named twice", where="validation sets")
    plan = plan_validation(
        [part.n_samples for part in sets], world_size=world_size, batch_size=batch_size
    )
    if not plan.total:
        raise DataError(
            f"no validation frame in {len(names)} dataset(s)",
            where="mixture",
            hint="Raise val_split_ratio: a dataset gives int(frames * ratio) frames.",
        )
    _warn_empty([part for part in sets if not part.n_samples])
    return MixtureValidation(tuple(sets), seed, plan)


def _warn_empty(empty: Sequence[ValidationSet]) -> None:
    if not empty:
        return
    shown = ", ".join(f"{part.name} ({part.n_frames} frames)" for part in empty[:_NAMES_SHOWN])
    more = f" and {len(empty) - _NAMES_SHOWN} more" if len(empty) > _NAMES_SHOWN else ""
    notices.warn(
        "empty_validation_set",
        f"{len(empty)} dataset(s) have too few frames for their val_split_ratio, and no validation "
        f"loss: {shown}{more}.",
        datasets=[part.name for part in empty],
    )
