"""Validation losses kept apart by where their samples come from.

Exact: the same samples give the same result to the last bit, in any order, in batches of any size,
on any number of ranks that are merged in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import DataError
from opentau_prep.val_loss.breakdown import build_result
from opentau_prep.val_loss.provenance import HeadsLike, Provenance
from opentau_prep.val_loss.samples import (
    Cell,
    LossValues,
    check_loss_name,
    group_cells,
    loss_values,
    make_cell,
)
from opentau_prep.val_loss.tally import Tally, tally_by_group

__all__ = ["GroupedLosses"]

_SCHEMA_VERSION = 1


class GroupedLosses:
    """Sums of per-sample (sum, count) pairs of any losses, by dataset, head and control mode.

    A sample whose sum or count is NaN or infinite is left out of that loss and counted as
    `non_finite` in every group it belongs to; `result` warns of it. One broken sample thus neither
    turns a whole run's curve into NaN nor goes unnoticed.

    Its size depends on the number of groups alone. Pickles as it is; `state` is the JSON-ready
    form.

    Example:
        >>> losses = GroupedLosses()
        >>> _ = losses.update(
        ...     dataset_index=[0, 0, 1],
        ...     dataset=["a", "b", "c"],
        ...     control_mode=["joint", None, "ee"],
        ...     losses={"MSE": ([1.0, 4.0, 9.0], [2, 2, 3])},
        ... )
        >>> losses.result()["metrics"]["Validation/b/joint/MSE"]
        2.0
    """

    def __init__(self) -> None:
        self._cells: dict[Cell, dict[str, Tally]] = {}

    def update(
        self,
        *,
        dataset_index: Any,
        dataset: Sequence[str] | NDArray[Any],
        control_mode: Sequence[str | None] | NDArray[Any],
        losses: Mapping[str, Any],
    ) -> GroupedLosses:
        """Add N samples and return self. Parallel values: lists, arrays, anything with `__array__`.

        Args:
            dataset_index: (N,) integers: each sample's norm-head row, as in the stacked stats of a
                policy (`NormHeads.dataset_to_norm_index`), not its place in the mixture; -1 for a
                dataset without a head.
            dataset: N mixture-level names.
            control_mode: N control modes; null, blank or `unknown` where training dropped it.
            losses: Loss name -> (sums, counts), (N,) each: the sample's loss summed over its
                elements or tokens, and how many there are. Counts may be 0 and need not be whole.

        Raises:
            DataError: A value is malformed, or values are not parallel; nothing was added.
        """
        of_sample, cells = group_cells(dataset_index, dataset, control_mode)
        self.add_grouped(of_sample, cells, loss_values(losses, len(of_sample)))
        return self

    def add_grouped(
        self, of_sample: NDArray[np.int64], cells: Sequence[Cell], losses: Mapping[str, LossValues]
    ) -> None:
        """Add samples whose cells are known already: the form for whole files.

        Args:
            of_sample: (N,) int64, each sample's place in `cells`.
            cells: The distinct cells.
            losses: Loss name -> checked values of the N samples.
        """
        for name, values in losses.items():
            tallies = tally_by_group(values, of_sample, len(cells))
            for cell, tally in zip(cells, tallies, strict=True):
                self._add(cell, name, tally)

    def merge(self, other: GroupedLosses | Mapping[str, Any]) -> GroupedLosses:
        """Add another rank's samples, as an accumulator or as its `state`, and return self.

        Raises:
            DataError: The state is malformed; nothing was added.
        """
        source = other if isinstance(other, GroupedLosses) else GroupedLosses.from_state(other)
        for cell, tallies in list(source._cells.items()):
            for name, tally in list(tallies.items()):
                self._add(cell, name, tally)
        return self

    def state(self) -> dict[str, Any]:
        """Return everything, to the last bit, JSON-ready; equal samples give equal states."""
        return {
            "schema_version": _SCHEMA_VERSION,
            "cells": [
                {
                    "dataset": cell.dataset,
                    "dataset_index": cell.dataset_index,
                    "control_mode": cell.control_mode,
                    "losses": {name: tally.as_state() for name, tally in sorted(tallies.items())},
                }
                for cell, tallies in sorted(self._cells.items(), key=lambda item: _order(item[0]))
            ],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> GroupedLosses:
        """Return the accumulator that `state` wrote.

        Raises:
            DataError: The state is malformed, or of another version.
        """
        losses = cls()
        try:
            version = state["schema_version"]
            if version == _SCHEMA_VERSION:
                for row in state["cells"]:
                    losses._add_state(row)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"malformed: {type(error).__name__} {error}",
                where="GroupedLosses state",
                hint="Pass the state as `state()` returned it.",
            ) from error
        if version != _SCHEMA_VERSION:
            raise DataError(
                f"schema version {version!r} where {_SCHEMA_VERSION} is understood",
                where="GroupedLosses state",
            )
        return losses

    def result(
        self,
        *,
        heads: HeadsLike | None = None,
        weights: Mapping[str, float] | Sequence[float] | None = None,
        control_modes: Mapping[str, str | None] | None = None,
        loss_weights: Mapping[str, float] | None = None,
    ) -> dict[str, Any]:
        """Return the breakdown as a JSON-ready mapping; see `opentau_prep.val_loss.breakdown`.

        Args:
            heads: The mixture's norm heads (`NormHeads`, or anything with `norm_keys`,
                `dataset_to_norm_index` and `norm_key_to_dataset_names`). Names the heads and brings
                masked control modes back; without them heads are called by their row.
            weights: Mixture weights, by dataset name, or parallel to the heads' datasets. Null
                weights of a mixture mean each dataset's selected frames: pass those. Without
                weights a dataset weighs its number of samples here, which comes to the same only
                where all datasets hold out the same share.
            control_modes: Each dataset's own control mode, where it has one.
            loss_weights: Loss name -> weight, for a weighted `total` of losses; losses that a
                group does not have count for nothing in it.

        Raises:
            ConfigError: Weights do not fit the datasets, or are negative or not finite.
            DataError: A sample's norm-head row is not that of its dataset in `heads`.
        """
        known = Provenance.of(heads, weights, control_modes)
        return build_result(self._cells, known, loss_weights)

    def _add(self, cell: Cell, name: str, tally: Tally) -> None:
        if tally.samples:
            tallies = self._cells.setdefault(cell, {})
            tallies[name] = tallies.get(name, Tally()) + tally

    def _add_state(self, row: Mapping[str, Any]) -> None:
        if type(row["dataset_index"]) is not int:
            raise TypeError(f"dataset_index {row['dataset_index']!r}")
        cell = make_cell(row["dataset_index"], row["dataset"], row["control_mode"])
        for name, tally in row["losses"].items():
            self._add(cell, check_loss_name(name, "GroupedLosses state"), Tally.from_state(tally))


def _order(cell: Cell) -> tuple[str, int, str]:
    return cell.dataset, cell.dataset_index, cell.control_mode or ""
