"""From a mixture to the datasets that are to be checked, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentau_prep.context import RunContext
from opentau_prep.errors import PrepError
from opentau_prep.metadata.locate import LocateOptions
from opentau_prep.metadata.resolve import resolve_mixture
from opentau_prep.notices import collect_notices
from opentau_prep.storage import is_remote
from opentau_prep.validate.view import EntrySpec, Target

if TYPE_CHECKING:
    from opentau_prep.config.schema import DatasetEntry, Mixture

__all__ = ["Subject", "find_targets"]


@dataclass(frozen=True)
class Subject:
    """What is to be checked.

    Attributes:
        mixture: The mixture, or what is left of it; None when nothing is.
        name: The mixture file's name, or `roots`.
        positions: Where each of the mixture's entries stands in its file.
        faults: (JSON path, message) of what is wrong with the file.
        from_file: Whether it is a mixture file, rather than roots on the command line.
    """

    mixture: Mixture | None
    name: str
    positions: Sequence[int] = ()
    faults: Sequence[tuple[str, str]] = ()
    from_file: bool = False


def find_targets(
    subject: Subject, context: RunContext | None = None, *, deep: bool = False
) -> tuple[list[Target], list[tuple[str, PrepError]]]:
    """Return the datasets, and (name, why) of those that are nowhere.

    Args:
        subject: The mixture.
        context: Whether the hub may be asked, where artifacts lie, and who reads the datasets.
        deep: Whether frames will be read.

    Raises:
        EngineError: A root is a URL whose driver is not installed.
    """
    mixture = subject.mixture
    if mixture is None:
        return [], []
    context = context or RunContext()
    options = LocateOptions.of_run(context, frames=deep, tolerant=True)
    with collect_notices():  # which the rules report themselves
        resolved = resolve_mixture(mixture, options, keep_going=True).part(context.shard)
    # A store that cannot be asked is one fault, not one of each rule.
    unusable = [entry for entry in resolved.broken if is_remote(entry.dataset.root)]
    located = {entry.name for entry in resolved.broken if entry not in unusable}
    lost = [(each.label, each.error) for each in resolved.faults if each.label not in located]
    targets = [
        Target(
            name=dataset.artifact_name,
            root=dataset.root,
            repo_id=dataset.repo_id,
            entries=tuple(
                _spec(_position(subject, entry.index), entry.name, entry.config, mixture)
                for entry in resolved.entries_of(dataset)
            ),
            from_mixture=subject.from_file,
            artifact_root=context.artifact_root,
            deep=deep,
        )
        for dataset in resolved.located_datasets
        if dataset.fault is None or not is_remote(dataset.root)
    ]
    return targets, lost


def _position(subject: Subject, number: int) -> int:
    """Return where an entry stands in the mixture's file, before faulty ones were left out."""
    return subject.positions[number] if subject.positions else number


def _spec(position: int, name: str, config: DatasetEntry, mixture: Mixture) -> EntrySpec:
    tolerance, skip = config.tolerance_s, config.skip_timestamp_check
    return EntrySpec(
        index=position,
        name=name,
        config=config,
        tolerance_s=mixture.tolerance_s if tolerance is None else tolerance,
        skip_timestamp_check=mixture.skip_timestamp_check if skip is None else skip,
        action_freq=mixture.action_freq,
    )
