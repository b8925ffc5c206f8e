"""The mixture as the rules see it: its file, its faults, and the facts of its datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentau_prep.validate.facts import EntryFacts

if TYPE_CHECKING:
    from pathlib import Path

    from opentau_prep.config.schema import Mixture
    from opentau_prep.errors import PrepError

__all__ = ["MixtureView"]


@dataclass(frozen=True)
class MixtureView:
    """What rules on a mixture may look at.

    Attributes:
        mixture: As written, or what is left of it.
        name: The file's name, or `roots`.
        faults: (JSON path, message) of what is wrong with the file.
        lost: (entry name, why) of the datasets that were not found.
        facts: Of the datasets that were, in mixture order.
        from_file: Whether it is a mixture file, rather than roots on the command line.
        outputs: The folder of what is made for the mixture as a whole; None for roots.
        tokenizer: A tokenizer folder that is to be checked with it.
        chunk_size: The policy's, when it was given.
        max_tokens: The policy's `discrete_action_max_length`, when it was given.
    """

    mixture: Mixture | None
    name: str
    faults: Sequence[tuple[str, str]]
    lost: Sequence[tuple[str, PrepError]]
    facts: Sequence[EntryFacts]
    from_file: bool
    outputs: Path | None = None
    tokenizer: Path | None = None
    chunk_size: int | None = None
    max_tokens: int | None = None
