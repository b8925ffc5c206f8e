"""One metadata layer for LeRobot v2.0, v2.1 and v3.0."""

from opentau_prep.metadata.dataset import DatasetMetadata, load_dataset_metadata
from opentau_prep.metadata.records import EpisodeTable, Feature, Stats

__all__ = ["DatasetMetadata", "EpisodeTable", "Feature", "Stats", "load_dataset_metadata"]
