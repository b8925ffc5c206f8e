"""Validation losses kept apart by where their samples come from.

Exact: the same samples give the same result to the last bit, in any order, in batches of any size,
on any number of ranks that are merged in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from opentau_prep.errors import DataError
from opentau_prep.val_loss.exact import LossValues, Tally, tally_by_group
from opentau_prep.val_loss.result import build_result
from opentau_prep.val_loss.samples import (
    Cell,
    as_array,
    check_loss_name,
    check_parallel,
    kept_samples,
    loss_values,
    make_cell,
)
from opentau_prep.val_loss.sources import HeadsLike, MixtureFacts

__all__ = ["GroupedLosses"]

_SCHEMA_VERSION: Final = 1
# Samples that are held before they are added up: about 3 MB of two losses.
_MAX_BUFFERED: Final = 1 << 16
_WHERE_STATE: Final = "GroupedLosses state"


class GroupedLosses:
    """Sums of per-sample (sum, count) pairs of any losses, by dataset, head and control mode.

    `update` only buffers: samples are added up, exactly, when there are many of them or when a
    result, a state or a merge needs them.

    A sample whose sum or count is NaN or infinite is left out of that loss and counted as
    `non_finite` in every group it belongs to; `result` warns of it. One broken sample thus neither
    turns a whole run's curve into NaN nor goes unnoticed.

    Its size depends on the number of groups alone, besides at most 65,536 buffered samples. Pickles
    as it is; `state` is the JSON-ready form.

    Example:
        >>> losses = GroupedLosses()
        >>> _ = losses.update(
        ...     dataset_index=[0, 0, 1],
        ...     dataset=["a", "b", "c"],
        ...     control_mode=["joint", None, "ee"],
        ...     losses={"MSE": ([1.0, 4.0, 9.0], [2, 2, 3])},
        ... )
        >>> losses.result()["metrics"]["Validation/by_dataset/b/MSE Loss"]
        2.0
    """

    def __init__(self) -> None:
        self._cells: dict[Cell, dict[str, Tally]] = {}
        self._means: dict[str, Tally] = {}
        # Where each (row, dataset, control mode) that has come is in `_seen`.
        self._places: dict[tuple[int, str | int, Any], int] = {}
        self._seen: list[Cell] = []
        self._buffer: list[tuple[list[int], dict[str, LossValues]]] = []
        self._n_buffered = 0

    def update(
        self,
        *,
        dataset_index: Any,
        dataset: Sequence[str] | Sequence[int] | NDArray[Any],
        control_mode: Sequence[str | None] | NDArray[Any] | None = None,
        losses: Mapping[str, Any],
        weights: Any = None,
    ) -> GroupedLosses:
        """Add N samples and return self. Parallel values: lists, arrays, torch tensors.

        Args:
            dataset_index: (N,) integers: each sample's norm-head row, as in the stacked stats of a
                policy (`NormHeads.dataset_to_norm_index`), not its place in the mixture; -1 for a
                dataset without a head.
            dataset: N mixture-level names; or N integers, the datasets' places in the mixture,
                which `result` turns into names when it knows the heads.
            control_mode: N control modes; null, blank or `unknown` where training dropped it; None
                when no sample carries one.
            losses: Loss name -> (sums, counts), (N,) each: the sample's loss summed over its
                elements or tokens, and how many there are. Counts may be 0 and need not be whole.
            weights: N numbers, 0 for a filler row that must not count and 1 for the others, as
                `ValidationPlan.weights` gives them; None when all samples count.

        Raises:
            DataError: A value is malformed, or values are not parallel; nothing was added.
        """
        places = self._places_of(dataset_index, dataset, control_mode)
        values = loss_values(losses, len(places))
        kept = kept_samples(weights, len(places))
        if kept is not None:
            places = [place for place, keep in zip(places, kept.tolist(), strict=True) if keep]
            values = {n: LossValues(v.sums[kept], v.counts[kept]) for n, v in values.items()}
        self._buffer.append((places, values))
        self._n_buffered += len(places)
        if self._n_buffered >= _MAX_BUFFERED:
            self._add_up()
        return self

    def update_means(self, losses: Mapping[str, Any], *, samples: int = 1) -> GroupedLosses:
        """Add one batch of a policy that reports no per-sample losses, and return self.

        Such losses have no provenance: they are in the aggregate alone, the mean over batches.
        Unlike per-sample losses they do depend on how samples are batched.

        Args:
            losses: Loss name -> the batch's mean, a number or a tensor of one element.
            samples: What the batch weighs. 1 for all batches is OpenTau's mean over batches; the
                number of the batch's samples gives each sample the same weight. 0 adds nothing.

        Raises:
            DataError: A value is malformed; nothing was added.
        """
        values = {}
        for name, value in losses.items():
            mean = as_array(value, f"batch mean of {name}").reshape(-1)
            if mean.size != 1 or mean.dtype.kind not in "biuf":
                raise DataError(f"{value!r} is not one number", where=f"batch mean of {name}")
            values[name] = (mean.astype(np.float64) * samples, [float(samples)])
        for name, pair in loss_values(values, 1).items() if samples else ():
            tally = tally_by_group(pair, np.zeros(1, np.int64), 1)[0]
            self._means[name] = self._means.get(name, Tally()) + tally
        return self

    def add_grouped(
        self, of_sample: NDArray[np.int64], cells: Sequence[Cell], losses: Mapping[str, LossValues]
    ) -> None:
        """Add samples whose cells are known already: the form for whole files.

        Args:
            of_sample: (N,) int64, each sample's place in `cells`.
            cells: The cells.
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
        source._add_up()
        for cell, tallies in list(source._cells.items()):
            for name, tally in list(tallies.items()):
                self._add(cell, name, tally)
        for name, tally in list(source._means.items()):
            self._means[name] = self._means.get(name, Tally()) + tally
        return self

    def state(self) -> dict[str, Any]:
        """Return everything, to the last bit, JSON-ready; equal samples give equal states."""
        self._add_up()
        state: dict[str, Any] = {
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
        if self._means:
            state["batch_means"] = {n: tally.as_state() for n, tally in sorted(self._means.items())}
        return state

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
                for name, tally in state.get("batch_means", {}).items():
                    losses._means[check_loss_name(name, _WHERE_STATE)] = Tally.from_state(tally)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"malformed: {type(error).__name__} {error}",
                where=_WHERE_STATE,
                hint="Pass the state as `state()` returned it.",
            ) from error
        if version != _SCHEMA_VERSION:
            raise DataError(
                f"schema version {version!r} where {_SCHEMA_VERSION} is understood",
                where=_WHERE_STATE,
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
        """Return the breakdown as a JSON-ready mapping; see `opentau_prep.val_loss.result`.

        Args:
            heads: The mixture's norm heads (`NormHeads`, or anything with `norm_keys` and
                `dataset_to_norm_index`). Names heads and datasets, and recovers masked control
                modes; without them heads are called by their row.
            weights: Mixture weights, by dataset name, or parallel to the heads' datasets. Without
                weights (a mixture whose weights are null) a dataset weighs its number of samples
                here, as in training's own validation.
            control_modes: Each dataset's own control mode, where it has one.
            loss_weights: Loss name -> weight, for a weighted `total` of losses; losses that a
                group does not have add nothing to it. Without them the metrics' `Loss` is
                MSE + CE, training's default.

        Raises:
            ConfigError: Weights do not fit the datasets, or are negative or not finite.
            DataError: A sample's norm-head row is not that of its dataset in `heads`, a dataset's
                place is not in them, or a loss came both per sample and as batch means.
        """
        return self.result_for(MixtureFacts.of(heads, weights, control_modes), loss_weights)

    def result_for(
        self, known: MixtureFacts, loss_weights: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """Return the same, of what is known of a mixture; see `mixture_sources`."""
        self._add_up()
        return build_result(known.named(self._cells), self._means, known, loss_weights)

    def _places_of(self, dataset_index: Any, dataset: Any, control_mode: Any) -> list[int]:
        """Return each sample's place in `_seen`; all checks are made where a place is new."""
        known = self._places
        if not isinstance(dataset, str):
            try:
                keys = zip(
                    _plain(dataset_index),
                    _plain(dataset),
                    repeat(None, len(dataset)) if control_mode is None else _plain(control_mode),
                    strict=True,
                )
                return [known[key] for key in keys]
            except (KeyError, TypeError, ValueError):
                pass
        samples = check_parallel(dataset_index, dataset, control_mode)
        cells = {key: make_cell(*key) for key in dict.fromkeys(samples) if key not in known}
        for key, cell in cells.items():
            known[key] = len(self._seen)
            self._seen.append(cell)
        return [known[key] for key in samples]

    def _add_up(self) -> None:
        buffered, self._buffer, self._n_buffered = self._buffer, [], 0
        for name in dict.fromkeys(chain.from_iterable(values for _, values in buffered)):
            having = [(places, values[name]) for places, values in buffered if name in values]
            places = np.fromiter(chain.from_iterable(p for p, _ in having), np.int64)
            sums = np.concatenate([v.sums for _, v in having])
            counts = np.concatenate([v.counts for _, v in having])
            self.add_grouped(places, self._seen, {name: LossValues(sums, counts)})

    def _add(self, cell: Cell, name: str, tally: Tally) -> None:
        if tally.samples:
            tallies = self._cells.setdefault(cell, {})
            tallies[name] = tallies.get(name, Tally()) + tally

    def _add_state(self, row: Mapping[str, Any]) -> None:
        if type(row["dataset_index"]) is not int:
            raise TypeError(f"dataset_index {row['dataset_index']!r}")
        cell = make_cell(row["dataset_index"], row["dataset"], row["control_mode"])
        for name, tally in row["losses"].items():
            self._add(cell, check_loss_name(name, _WHERE_STATE), Tally.from_state(tally))


def _plain(values: Any) -> Any:
    return values.tolist() if hasattr(values, "tolist") else values


def _order(cell: Cell) -> tuple[str, int, int, str]:
    name = cell.dataset if isinstance(cell.dataset, str) else ""
    place = cell.dataset if isinstance(cell.dataset, int) else -1
    return name, place, cell.dataset_index, cell.control_mode or ""
