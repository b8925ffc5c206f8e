"""What moved between two mixtures, stats or tokenizers, sorted by what the policy sees of it."""

from opentau_prep.diff.compare import Diff, diff
from opentau_prep.diff.stats import Moved

__all__ = ["Diff", "Moved", "diff"]
