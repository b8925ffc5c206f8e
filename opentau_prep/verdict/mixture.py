"""The mixture's own part of the report: entries, sizes, expected shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from opentau_prep.errors import PrepError
from opentau_prep.storage import safe_url
from opentau_prep.val_loss.mixture import selected_frames
from opentau_prep.verdict.facts import DatasetFacts, MixtureFacts

if TYPE_CHECKING:
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture

__all__ = ["mixture_facts"]


def mixture_facts(resolved: ResolvedMixture) -> MixtureFacts:
    """Return the mixture with its entries in order, also those that carry no robot data."""
    mixture = resolved.mixture
    known = {entry.name: _robot(entry) for entry in resolved.entries}
    lost = {each.label: str(each.error) for each in resolved.faults}
    datasets = []
    for name, config in zip(mixture.dataset_names, mixture.datasets, strict=True):
        if name in known:
            datasets.append(known[name])
        elif config.is_vqa:
            datasets.append(DatasetFacts(name, "vqa"))
        else:
            root = None if config.root is None else safe_url(config.root)
            datasets.append(DatasetFacts(name, "lost", root, fault=lost.get(name)))
    weighted = _weighted(mixture.weights, datasets)
    return MixtureFacts(
        path=None if mixture.path is None else str(mixture.path),
        mixture_id=mixture.mixture_id,
        sha256=mixture.sha256,
        weights_from="selected_frames" if mixture.weights is None else "mixture",
        action_freq=mixture.action_freq,
        resampling=mixture.vector_resample_strategy,
        val_split_ratio=mixture.val_split_ratio,
        episodes=sum(each.episodes or 0 for each in datasets),
        frames=sum(each.frames or 0 for each in datasets),
        seconds=sum(each.seconds or 0.0 for each in datasets),
        datasets=weighted,
    )


def _robot(entry: ResolvedEntry) -> DatasetFacts:
    facts = DatasetFacts(entry.name, "robot", entry.meta.root, entry.meta.version)
    try:
        fps = float(entry.meta.fps)
        frames = selected_frames(entry)
        return replace(
            facts,
            robot_type=entry.robot_type,
            control_mode=entry.control_mode,
            fps=fps,
            episodes=len(entry.episodes),
            episodes_all=len(entry.meta.episodes),
            frames=frames,
            seconds=frames / fps,
        )
    except PrepError as fault:
        return replace(facts, fault=str(fault))


def _weighted(
    weights: Sequence[float] | None, datasets: Sequence[DatasetFacts]
) -> list[DatasetFacts]:
    """Return the entries with weight and share; null weights mean the selected frames.

    Frames of an entry that is not there, or carries no robot data, are not known: then the shares
    are those among the others.
    """
    own = [each.frames for each in datasets] if weights is None else list(weights)
    total = sum(weight for weight in own if weight is not None)
    return [
        replace(each, weight=weight, share=weight / total if total and weight is not None else None)
        for each, weight in zip(datasets, own, strict=True)
    ]
