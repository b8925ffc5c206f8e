"""The validation pass of a whole mixture: which rows of which dataset, on which rank."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from opentau_prep import notices
from opentau_prep.artifacts.jsonio import load_own
from opentau_prep.config.training import TRAINING_SEED
from opentau_prep.errors import ConfigError, DataError, PrepError
from opentau_prep.metadata.split import held_out_episodes, train_val_split, validation_size
from opentau_prep.val_loss.plan import BatchSampler, ValidationPlan, plan_validation

if TYPE_CHECKING:
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture

__all__ = [
    "PLAN_SCHEMA_VERSION",
    "MixtureValidation",
    "Split",
    "ValidationSet",
    "load_validation_plan",
    "plan_mixture_validation",
    "selected_frames",
    "validation_sets",
]

PLAN_SCHEMA_VERSION: Final = 2
Split = Literal["training", "episodes"]


@dataclass(frozen=True)
class ValidationSet:
    """One dataset's part in validation.

    Attributes:
        name: Mixture-level name.
        n_frames: Frames of its selected episodes; samples of a vqa entry.
        val_split_ratio: The dataset's own ratio, or the mixture's.
        spans: Rows of the held-out episodes, `(start, stop)` each, ascending; None where rows are
            drawn as training draws them.
    """

    name: str
    n_frames: int
    val_split_ratio: float
    spans: tuple[tuple[int, int], ...] | None = None

    @cached_property
    def n_samples(self) -> int:
        """Frames held out for validation."""
        if self.spans is not None:
            return sum(stop - start for start, stop in self.spans)
        return validation_size(self.n_frames, self.val_split_ratio, self.name)

    def rows(self, seed: int) -> NDArray[np.int64]:
        """Return the held-out rows among the selected frames, ascending, (n_samples,) int64."""
        if self.spans is None:
            return train_val_split(self.n_frames, self.val_split_ratio, seed)[1]
        parts = [np.arange(start, stop, dtype=np.int64) for start, stop in self.spans]
        return np.concatenate([np.empty(0, np.int64), *parts])


@dataclass(frozen=True)
class MixtureValidation:
    """A validation plan together with the sets that it runs over.

    Attributes:
        sets: The mixture's validation sets, in mixture order.
        seed: The seed that draws their rows; of no effect where whole episodes are held out.
        plan: The plan over their lengths.
        split: `training` (the rows that OpenTau holds out) or `episodes` (LeRobot's rule).
    """

    sets: tuple[ValidationSet, ...]
    seed: int
    plan: ValidationPlan
    split: Split = "training"

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

    def batches(self, rank: SupportsIndex | None = None) -> BatchSampler:
        """Return a batch sampler of positions; see `ValidationPlan.batches`."""
        return self.plan.batches(rank)

    def weights(self, rank: SupportsIndex) -> NDArray[np.float32]:
        """Return what each row of the rank's batches weighs; see `ValidationPlan.weights`."""
        return self.plan.weights(rank)

    def as_json(self) -> dict[str, Any]:
        """Return plan and sets as a JSON-ready mapping, which `from_json` reads back."""
        plan = {"schema_version": PLAN_SCHEMA_VERSION, **self.plan.as_json()}
        offsets = plan.pop("offsets")
        del plan["lengths"]
        plan["split"] = self.split
        plan["seed"] = self.seed
        per_round = self.plan.world_size * self.plan.batch_size
        plan["datasets"] = [
            {
                "name": part.name,
                "selected_frames": part.n_frames,
                "val_split_ratio": part.val_split_ratio,
                "samples": part.n_samples,
                "offset": offset,
                "rounds_alone": -(-part.n_samples // per_round),
                **({} if part.spans is None else {"rows": [list(span) for span in part.spans]}),
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
            split = document["split"]
            sets = tuple(_set_from_json(d, split) for d in document["datasets"])
            plan = plan_validation(
                [part.n_samples for part in sets],
                world_size=document["world_size"],
                batch_size=document["batch_size"],
            )
            read = cls(sets, operator.index(document["seed"]), plan, split)
            same = read.as_json() == dict(document)
        except (PrepError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise _not_a_plan(where, f"{type(error).__name__}: {error}") from error
        if not same:
            raise _not_a_plan(where, "its parts contradict each other, or its version is another")
        return read


def validation_sets(
    resolved: ResolvedMixture, *, split: Split = "training", ratio: float | None = None
) -> list[ValidationSet]:
    """Return each entry's part in validation, in mixture order.

    An entry's ratio is its own `val_split_ratio`, or else `ratio`, or else the mixture's. A vqa
    entry has as many samples as its `num_samples` says; none without it, or in a split by episodes.

    Args:
        resolved: The mixture.
        split: Whether frames are held out as OpenTau does, or episodes as LeRobot does.
        ratio: A ratio to use instead of the mixture's.

    Raises:
        ConfigError: A selection is faulty.
        MetadataError: An episode table is missing or malformed.
    """
    usual = resolved.mixture.val_split_ratio if ratio is None else ratio
    entries = {entry.name: entry for entry in resolved.entries}
    sets = []
    named = zip(resolved.mixture.dataset_names, resolved.mixture.datasets, strict=True)
    for name, config in named:
        share = usual if config.val_split_ratio is None else config.val_split_ratio
        if name in entries:
            entry = entries[name]
            spans = _held_out_spans(entry, share) if split == "episodes" else None
            sets.append(ValidationSet(name, selected_frames(entry), share, spans))
        elif config.is_vqa:
            samples = config.num_samples or 0
            spans = () if split == "episodes" else None
            sets.append(ValidationSet(name, samples, share, spans))
    return sets


def plan_mixture_validation(
    sets: Sequence[ValidationSet],
    *,
    world_size: int,
    batch_size: int,
    seed: int = TRAINING_SEED,
    split: Split = "training",
) -> MixtureValidation:
    """Return the validation pass of a mixture.

    A dataset whose ratio leaves it no frame is warned about, once for all: its losses will be
    absent.

    Raises:
        ConfigError: An argument is out of range, or two sets share a name.
        DataError: No dataset has a validation frame.
    """
    names = [part.name for part in sets]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{', '.join(doubled)} named twice", where="validation sets")
    train_val_split(0, 0.0, seed)
    plan = plan_validation(
        [part.n_samples for part in sets], world_size=world_size, batch_size=batch_size
    )
    if not plan.total:
        raise DataError(
            f"no validation frame in {len(names)} dataset(s)",
            where="mixture",
            hint="Raise val_split_ratio: a dataset holds out int(frames * ratio) frames.",
        )
    _warn_empty([part for part in sets if not part.n_samples])
    return MixtureValidation(tuple(sets), seed, plan, split)


def load_validation_plan(path: str | Path) -> MixtureValidation:
    """Return the plan that `val-plan` wrote: the same on every rank that reads it.

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


def selected_frames(entry: ResolvedEntry) -> int:
    """Return the number of frames in an entry's selected episodes, by the episodes table."""
    return int(_lengths(entry).sum())


def _lengths(entry: ResolvedEntry) -> NDArray[np.int64]:
    table = entry.meta.episodes
    return np.asarray(table.length[np.isin(table.episode_index, entry.episodes)], dtype=np.int64)


def _held_out_spans(entry: ResolvedEntry, ratio: float) -> tuple[tuple[int, int], ...]:
    table = entry.meta.episodes
    tasks = [table.tasks[table.position(e)] for e in entry.episodes.tolist()]
    held_out = held_out_episodes([task[0] if task else "" for task in tasks], ratio)
    stops = np.cumsum(_lengths(entry))
    starts = stops - _lengths(entry)
    return tuple(zip(starts[held_out].tolist(), stops[held_out].tolist(), strict=True))


def _set_from_json(document: Mapping[str, Any], split: str) -> ValidationSet:
    frames = operator.index(document["selected_frames"])
    spans = None
    if split == "episodes":
        spans = tuple((operator.index(a), operator.index(b)) for a, b in document["rows"])
        bounds = [0, *(row for span in spans for row in span), frames]
        if bounds != sorted(bounds):
            raise ValueError(f"rows {document['rows']} of {frames} frames")
    elif split != "training":
        raise ValueError(f"split {split!r}")
    return ValidationSet(document["name"], frames, document["val_split_ratio"], spans)


def _not_a_plan(where: str, why: str) -> DataError:
    return DataError(
        f"not a validation plan ({why})", where=where, hint="Recompute it with val-plan."
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
