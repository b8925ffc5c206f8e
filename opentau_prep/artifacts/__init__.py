"""What is written, by whom, and whether it is still true: the package's only way to write files."""

from opentau_prep.artifacts.ensure import Artifact, ensure, ensure_file
from opentau_prep.artifacts.place import dataset_place
from opentau_prep.artifacts.provenance import Recipe
from opentau_prep.artifacts.rank import Rank
from opentau_prep.artifacts.store import publish

__all__ = ["Artifact", "Rank", "Recipe", "dataset_place", "ensure", "ensure_file", "publish"]
