"""The validation pass of a whole mixture: which rows of which dataset, on which rank."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from opentau_prep import notices
from opentau_prep.artifacts.jsonio import load_own
from opentau_prep.errors import ConfigError, DataError, PrepError
from opentau_prep.val_loss.plan import ValidationPlan, plan_validation
from opentau_prep.val_loss.subset import subset_size, validation_subset

__all__ = [
    "PLAN_SCHEMA_VERSION",
    "MixtureValidation",
    "ValidationSet",
    "load_validation_plan",
    "plan_mixture_validation",
]

PLAN_SCHEMA_VERSION: Final = 1


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
        """Return plan and sets as a JSON-ready mapping, which `from_json` reads back."""
        plan = {"schema_version": PLAN_SCHEMA_VERSION, **self.plan.as_json(), "seed": self.seed}
        offsets = plan.pop("offsets")
        del plan["lengths"]
        per_round = self.plan.world_size * self.plan.batch_size
        plan["datasets"] = [
            {
                "name": part.name,
                "selected_frames": part.n_frames,
                "val_split_ratio": part.val_split_ratio,
                "samples": part.n_samples,
                "offset": offset,
                "rounds_alone": -(-part.n_samples // per_round),
            }
            for part, offset in zip(self.sets, offsets, strict=True)
        ]
        return plan

    @classmethod
    def from_json(cls, document: Mapping[str, Any], where: str) -> MixtureValidation:
        """Return the plan that `as_json` wrote; its ranges are worked out again, and compared.

        Args:
            document: The mapping.
            where: The file it comes from, for the message.

        Raises:
            DataError: It is malformed, of another version, or was edited into contradiction.
        """
        try:
            sets = tuple(
                ValidationSet(d["name"], d["selected_frames"], d["val_split_ratio"])
                for d in document["datasets"]
            )
            plan = plan_validation(
                [part.n_samples for part in sets],
                world_size=document["world_size"],
                batch_size=document["batch_size"],
            )
            read = cls(sets, operator.index(document["seed"]), plan)
            same = read.as_json() == dict(document)
        except (PrepError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise _not_a_plan(where, f"{type(error).__name__}: {error}") from error
        if not same:
            raise _not_a_plan(where, "its parts contradict each other, or its version is another")
        return read


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


def load_validation_plan(path: str | Path) -> MixtureValidation:
    """Return the plan that `val-plan --out` wrote: the same on every rank that reads it.

    Raises:
        DataError: The file is missing, or is not such a plan.
    """
    try:
        document = load_own(Path(path).read_bytes(), where=str(path))
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except PrepError as error:
        raise DataError(error.message, where=str(path)) from error
    return MixtureValidation.from_json(document, str(path))


def _not_a_plan(where: str, why: str) -> DataError:
    return DataError(
        f"not a validation plan ({why})", where=where, hint="Write it again with val-plan --out."
    )


def _warn_empty(empty: Sequence[ValidationSet]) -> None:
    if not empty:
        return
    shown = notices.some_names(f"{part.name} ({part.n_frames} frames)" for part in empty)
    notices.warn(
        "empty_validation_set",
        f"{len(empty)} dataset(s) have too few frames for their val_split_ratio, and no validation "
        f"loss: {shown}.",
        datasets=[part.name for part in empty],
    )
