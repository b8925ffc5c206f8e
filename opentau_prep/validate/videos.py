"""The video files of a dataset: which there should be, which there are, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from opentau_prep.errors import PrepError
from opentau_prep.metadata.info import DEFAULT_CHUNKS_SIZE, INFO, chunks_size
from opentau_prep.metadata.paths import EPISODES_DIR, check_template
from opentau_prep.validate.mp4 import VideoFacts, read_video

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from opentau_prep.metadata import DatasetMetadata, EpisodeTable
    from opentau_prep.metadata.records import IntArray
    from opentau_prep.storage import Storage

__all__ = ["Camera", "Videos", "read_videos"]

_DEFAULT_V2 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_DEFAULT_V3 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_MP4 = (".mp4", ".m4v", ".mov")
# In a store each file costs two or three requests; presence and sizes come from its listing.
_MOST_READ_IN_STORE = 64


@dataclass(frozen=True)
class Camera:
    """One camera's files.

    Attributes:
        column: The feature.
        files: The file of each episode, in table order.
        spans: v3.0: (E, 2) seconds within the file, from and to; None where they are not known.
    """

    column: str
    files: Sequence[str]
    spans: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Videos:
    """The videos of a dataset.

    Attributes:
        cameras: The cameras that are stored as video.
        good: File -> what it holds, as far as files were read.
        missing: Files that are not there.
        broken: File -> why it cannot be played.
    """

    cameras: Sequence[Camera]
    good: Mapping[str, VideoFacts]
    missing: frozenset[str]
    broken: Mapping[str, PrepError]


def read_videos(meta: DatasetMetadata, table: EpisodeTable) -> Videos:
    """Return what the boxes of every video file say; no picture is decoded.

    Raises:
        MetadataError: `video_path` is malformed, or the v3.0 table lacks a camera's columns.
    """
    keys = [name for name, feature in meta.features.items() if feature.dtype == "video"]
    cameras = _cameras_v3(meta, table, keys) if meta.is_v3 else _cameras_v2(meta, table, keys)
    files = list(dict.fromkeys(rel for camera in cameras for rel in camera.files))
    storage = meta.storage
    sizes = {rel: _size(storage, rel) for rel in files}
    there = [rel for rel in files if sizes[rel] is not None]
    wanted = [rel for rel in there if rel.endswith(_MP4)]
    if storage.folder is None and len(wanted) > _MOST_READ_IN_STORE:
        spread = np.linspace(0, len(wanted) - 1, _MOST_READ_IN_STORE).astype(int)
        wanted = [wanted[i] for i in spread]
    good: dict[str, VideoFacts] = {}
    broken: dict[str, PrepError] = {}
    for rel in wanted:
        try:
            good[rel] = read_video(
                lambda start, stop, rel=rel: storage.read_range(rel, start, stop),  # type: ignore[misc]
                sizes[rel] or 0,
                rel,
            )
        except PrepError as fault:
            broken[rel] = fault
    missing = frozenset(rel for rel in files if sizes[rel] is None)
    return Videos(cameras, good, missing, broken)


def _size(storage: Storage, rel: str) -> int | None:
    try:
        return storage.size(rel)
    except PrepError:
        return None


def _template(meta: DatasetMetadata, default: str, known: Sequence[str]) -> str:
    template = meta.info.get("video_path")
    if not isinstance(template, str):
        return default
    return check_template(template, (*known, "video_key"), f"{meta.storage.url}/{INFO}")


def _cameras_v2(meta: DatasetMetadata, table: EpisodeTable, keys: Sequence[str]) -> list[Camera]:
    template = _template(
        meta, _DEFAULT_V2, ("episode_chunk", "chunk_index", "episode_index", "file_index")
    )
    size = chunks_size(meta.info, f"{meta.storage.url}/{INFO}") or DEFAULT_CHUNKS_SIZE
    episodes = table.episode_index.tolist()

    def path(key: str, episode: int) -> str:
        chunk = episode // size
        return template.format(
            video_key=key,
            episode_chunk=chunk,
            chunk_index=chunk,
            episode_index=episode,
            file_index=episode,
        )

    return [Camera(key, [path(key, episode) for episode in episodes]) for key in keys]


def _cameras_v3(meta: DatasetMetadata, table: EpisodeTable, keys: Sequence[str]) -> list[Camera]:
    template = _template(meta, _DEFAULT_V3, ("chunk_index", "file_index"))
    found = []
    for key in keys:
        names = [f"videos/{key}/{name}" for name in ("chunk_index", "file_index")]
        times = [f"videos/{key}/{name}" for name in ("from_timestamp", "to_timestamp")]
        columns = _columns(meta, [*names, *times])
        if any(name not in columns for name in names):
            continue  # named by the rule on these columns
        places = np.stack([columns[name] for name in names], axis=1).astype(np.int64)
        files = [
            template.format(video_key=key, chunk_index=chunk, file_index=file)
            for chunk, file in places.tolist()
        ]
        spans = None
        if all(name in columns for name in times):
            spans = np.stack([columns[name] for name in times], axis=1).astype(np.float64)
        found.append(Camera(key, files, spans))
    return found


def _columns(meta: DatasetMetadata, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return columns of the v3.0 episodes table as far as all its files have them, in its order."""
    parts: list[dict[str, NDArray[np.float64]]] = []
    order: list[IntArray] = []
    for rel in meta.storage.list_files(EPISODES_DIR, ".parquet"):
        file = meta.storage.open_parquet(rel)
        here = [name for name in names if name in file.schema_arrow.names]
        table = meta.storage.read_table(rel, ["episode_index", *here], file=file)
        order.append(np.asarray(table.column("episode_index").to_numpy(), dtype=np.int64))
        parts.append(
            {
                name: np.asarray(table.column(name).to_numpy(zero_copy_only=False), np.float64)
                for name in here
            }
        )
    rows = np.argsort(np.concatenate(order), kind="stable") if order else np.zeros(0, np.int64)
    common = set.intersection(*(set(part) for part in parts)) if parts else set()
    whole = {name: np.concatenate([part[name] for part in parts])[rows] for name in common}
    return {name: column for name, column in whole.items() if np.isfinite(column).all()}
