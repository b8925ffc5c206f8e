"""Where validation samples come from: norm heads, weights, and the control modes that were masked.

The rules work on whole sets of cells, never on the order in which samples came. Of a mixture,
metadata alone is read: episode tables and info.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

from opentau_prep.errors import ConfigError, DataError
from opentau_prep.heads.keys import group_by_key
from opentau_prep.notices import shorten_names, some_names
from opentau_prep.val_loss.exact import Tally
from opentau_prep.val_loss.mixture import validation_sets
from opentau_prep.val_loss.samples import NO_HEAD, Cell, unmasked

if TYPE_CHECKING:
    from opentau_prep.metadata.resolve import ResolvedMixture

__all__ = [
    "UNKNOWN_MODE",
    "HeadsLike",
    "MixtureFacts",
    "mixture_sources",
    "recover_modes",
]

UNKNOWN_MODE = "unknown"
_SEPARATOR = "::"


class HeadsLike(Protocol):
    """The part of `NormHeads` that says who is in which head."""

    @property
    def norm_keys(self) -> Sequence[str]:
        """Norm keys, by head row."""
        ...

    @property
    def dataset_to_norm_index(self) -> Mapping[str, int]:
        """Mixture-level dataset name -> head row."""
        ...


@dataclass(frozen=True)
class MixtureFacts:
    """What is known of a mixture besides the samples themselves; all of it is optional.

    Attributes:
        norm_keys: Norm keys by head row.
        dataset_to_norm_index: Dataset name -> head row, in mixture order.
        weights: Dataset name -> mixture weight, exact; None when there are none.
        control_modes: Dataset name -> its control mode, for the datasets that have one.
        weights_from: `mixture`; where a mixture's weights are null, `held_out_frames`.
    """

    norm_keys: tuple[str, ...] | None = None
    dataset_to_norm_index: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, Fraction] | None = None
    control_modes: Mapping[str, str] = field(default_factory=dict)
    weights_from: str = "mixture"

    @classmethod
    def of(
        cls,
        heads: HeadsLike | None = None,
        weights: Mapping[str, float] | Sequence[float] | None = None,
        control_modes: Mapping[str, str | None] | None = None,
    ) -> MixtureFacts:
        """Return the provenance that these arguments of `GroupedLosses.result` describe.

        Raises:
            ConfigError: A weight is negative or not finite, a list of weights is not parallel to
                the heads' datasets, or a dataset of the heads has no weight.
        """
        head_of = dict(heads.dataset_to_norm_index) if heads is not None else {}
        modes = {name: unmasked(mode) for name, mode in (control_modes or {}).items()}
        return cls(
            norm_keys=tuple(heads.norm_keys) if heads is not None else None,
            dataset_to_norm_index=head_of,
            weights=None if weights is None else _exact_weights(weights, list(head_of)),
            control_modes={name: mode for name, mode in modes.items() if mode is not None},
        )

    def head_label(self, row: int) -> str:
        """Return the norm key of a row, or the row's number when the heads are not known."""
        return str(row) if self.norm_keys is None else self.norm_keys[row]

    def members(self, row: int, seen: Iterable[str]) -> list[str]:
        """Return a head's datasets: all of them when the heads are known, else those in `seen`."""
        if self.norm_keys is None:
            return sorted(seen)
        return [name for name, head in self.dataset_to_norm_index.items() if head == row]

    def head_mode(self, row: int) -> str | None:
        """Return the control mode in a row's norm key; None for a dataset's fallback head."""
        if self.norm_keys is None or row == NO_HEAD:
            return None
        key = self.norm_keys[row]
        # A fallback head is named after its only member, whatever characters that name has.
        if key in self.dataset_to_norm_index or _SEPARATOR not in key:
            return None
        return unmasked(key.rpartition(_SEPARATOR)[2])

    def named(self, cells: Mapping[Cell, Mapping[str, Tally]]) -> dict[Cell, dict[str, Tally]]:
        """Return the cells with every dataset by its name: places in the mixture are looked up.

        Without heads a place is its own name.

        Raises:
            DataError: The heads have no dataset at a place.
        """
        names = list(self.dataset_to_norm_index)
        out: dict[Cell, dict[str, Tally]] = {}
        for cell, tallies in cells.items():
            place = cell.dataset
            if isinstance(place, int):
                if self.norm_keys is not None and place >= len(names):
                    raise DataError(
                        f"there is no dataset {place} among the {len(names)} of the heads",
                        where="GroupedLosses.result",
                        hint="Pass the mixture's heads, with every entry in mixture order.",
                    )
                place = str(place) if self.norm_keys is None else names[place]
            whole = out.setdefault(Cell(place, cell.dataset_index, cell.control_mode), {})
            for name, tally in tallies.items():
                whole[name] = whole.get(name, Tally()) + tally
        return out

    def check(self, cells: Iterable[Cell]) -> None:
        """Check that the samples' head rows are those of the mixture.

        Raises:
            DataError: A row does not exist, or is not the row of the sample's dataset.
        """
        if self.norm_keys is None:
            return
        for cell in cells:
            expected = self.dataset_to_norm_index.get(str(cell.dataset), NO_HEAD)
            if cell.dataset_index != expected:
                row = "none" if expected == NO_HEAD else f"row {expected}"
                raise DataError(
                    f"samples of {cell.dataset} have norm-head row {cell.dataset_index}, the heads "
                    f"have {row}",
                    where=f"dataset {cell.dataset}",
                    hint="Pass the heads that training used; dataset_index is the head's row in "
                    "them (-1 for a dataset without a head).",
                )

    def check_member(self, cell: Cell) -> None:
        """Check that a sample's dataset is in the mixture, and its head row that of the dataset.

        Raises:
            DataError: It is not.
        """
        if cell.dataset not in self.dataset_to_norm_index:
            shown, more = shorten_names(list(self.dataset_to_norm_index))
            raise DataError(
                f"dataset {cell.dataset!r} is not in the mixture, which has "
                f"{', '.join(shown)}{more}",
                hint="Pass the mixture that the run was trained on.",
            )
        self.check([cell])


def recover_modes(cells: Iterable[Cell], known: MixtureFacts) -> dict[Cell, str]:
    """Return each cell's control mode: its own, or the one that training dropped out of it.

    A masked one is taken from the first of these that has one: the dataset's declared control mode;
    the norm key of the sample's head; the one mode of the dataset's other samples; the one mode of
    the head's other samples. Otherwise it is `unknown`.
    """
    cells = list(cells)
    by_dataset = _single_modes((cell.dataset, cell.control_mode) for cell in cells)
    by_head = _single_modes(
        (cell.dataset_index, cell.control_mode) for cell in cells if cell.dataset_index != NO_HEAD
    )
    return {
        cell: cell.control_mode
        or known.control_modes.get(str(cell.dataset))
        or known.head_mode(cell.dataset_index)
        or by_dataset.get(cell.dataset)
        or by_head.get(cell.dataset_index)
        or UNKNOWN_MODE
        for cell in cells
    }


def _single_modes(pairs: Iterable[tuple[Any, str | None]]) -> dict[Any, str]:
    """Return key -> mode for the keys that show exactly one."""
    shown: dict[Any, set[str]] = {}
    for key, mode in pairs:
        if mode is not None:
            shown.setdefault(key, set()).add(mode)
    return {key: next(iter(modes)) for key, modes in shown.items() if len(modes) == 1}


def _exact_weights(
    weights: Mapping[str, float] | Sequence[float], names: list[str]
) -> dict[str, Fraction]:
    if not isinstance(weights, Mapping):
        if len(weights) != len(names):
            raise ConfigError(
                f"{len(weights)} weights for the {len(names)} datasets of the heads",
                where="weights",
                hint="Pass one per dataset in the heads' order, or a mapping by dataset name.",
            )
        weights = dict(zip(names, weights, strict=True))
    if missing := [name for name in names if name not in weights]:
        raise ConfigError(f"no weight for {some_names(missing)}", where="weights")
    exact = {}
    for name, weight in weights.items():
        try:
            exact[name] = Fraction(float(weight))
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(
                f"{weight!r} is not a finite number", where=f"weight of {name}"
            ) from error
        if exact[name] < 0:
            raise ConfigError(f"{weight!r} is negative", where=f"weight of {name}")
    return exact


def mixture_sources(resolved: ResolvedMixture) -> MixtureFacts:
    """Return what a mixture says about its samples.

    Head rows and members are those of `build_norm_heads`, from the same rule; no stats are read.
    With null weights a dataset weighs the samples that it holds out, as in training's validation.

    Raises:
        ConfigError: Names collide, or a selection is faulty.
        MetadataError: A tag in an info.json is not a string.
    """
    sets = validation_sets(resolved)
    written = dict(zip(resolved.mixture.dataset_names, resolved.mixture.datasets, strict=True))
    tags = {name: (config.robot_type, config.control_mode) for name, config in written.items()}
    tags |= {entry.name: (entry.robot_type, entry.control_mode) for entry in resolved.entries}
    names = [part.name for part in sets]
    pairs = [tags[name] for name in names]
    infos = [{"robot_type": robot, "control_mode": mode} for robot, mode in pairs]
    groups = group_by_key(names, infos)
    row_of = {name: row for row, members in enumerate(groups.members.values()) for name in members}
    given = resolved.mixture.weights
    weights = (
        {part.name: float(part.n_samples) for part in sets}
        if given is None
        else dict(zip(written, given, strict=True))
    )
    modes = {name: unmasked(mode) for name, (_, mode) in zip(names, pairs, strict=True)}
    return MixtureFacts(
        norm_keys=tuple(groups.members),
        dataset_to_norm_index={name: row_of[name] for name in names},
        weights=_exact_weights({name: weights[name] for name in names}, names),
        control_modes={name: mode for name, mode in modes.items() if mode is not None},
        weights_from="held_out_frames" if given is None else "mixture",
    )
