"""Write a complete LeRobot dataset (without videos) in any of the three formats, from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from opentau_prep.demo.append import append_episode
from opentau_prep.demo.encode import encode_episodes, write_json
from opentau_prep.demo.info import build_info
from opentau_prep.demo.layouts import write_data_v2, write_data_v3, write_meta_v2, write_meta_v3
from opentau_prep.demo.spec import ABSENT, DatasetSpec, EpisodeData
from opentau_prep.errors import ArtifactError

__all__ = ["ABSENT", "DatasetSpec", "EpisodeData", "append_episode", "write_dataset"]


def write_dataset(
    root: Path, spec: DatasetSpec, episodes: Sequence[EpisodeData], *, data: bool = True
) -> None:
    """Write a dataset: `meta/` and `data/`, the layout and schemas of published datasets.

    The same arguments give the same bytes (with the same pyarrow). All episodes are held in memory.

    Args:
        root: The folder to fill; created with its parents.
        spec: Format and options.
        episodes: At least one; all with the same columns.
        data: False leaves `data/` out: a dataset for whatever reads metadata only.

    Raises:
        ConfigError: The episodes do not fit the spec or each other.
        ArtifactError: The folder holds a dataset already.
    """
    if (root / "meta").exists() or (root / "data").exists():
        raise ArtifactError(
            "the folder holds a dataset already", where=str(root), hint="Choose another folder."
        )
    encoded = encode_episodes(spec, episodes)
    n_frames = sum(episode.length for episode in encoded)
    info = build_info(spec, encoded[0].columns, n_episodes=len(encoded), n_frames=n_frames)
    v3 = spec.version == "v3.0"
    if data:
        (write_data_v3 if v3 else write_data_v2)(root, spec, encoded)
    (write_meta_v3 if v3 else write_meta_v2)(root, spec, encoded)
    write_json(root / "meta/info.json", info)
