"""What moved between two mixtures, stats or tokenizers, sorted by what the policy sees of it."""

from opentau_prep.diff.compare import Difference, Moved, diff

__all__ = ["Difference", "Moved", "diff"]
