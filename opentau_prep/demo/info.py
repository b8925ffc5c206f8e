"""info.json of a synthetic dataset, with the fields and the key order of published ones."""

from __future__ import annotations

import math
from typing import Any

from opentau_prep.demo.encode import Columns
from opentau_prep.demo.spec import ABSENT, DatasetSpec

__all__ = ["DATA_PATH_V2", "DATA_PATH_V3", "build_info"]

DATA_PATH_V2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
DATA_PATH_V3 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO_PATH_V2 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_VIDEO_PATH_V3 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_IMAGE_HEIGHT, _IMAGE_WIDTH = 480, 640


def build_info(
    spec: DatasetSpec, columns: Columns, *, n_episodes: int, n_frames: int
) -> dict[str, Any]:
    """Return info.json's content.

    Args:
        spec: The dataset's options.
        columns: One episode's columns, from which dtypes and widths are taken.
        n_episodes: Episodes in the dataset.
        n_frames: Frames in the dataset.
    """
    info: dict[str, Any] = {"codebase_version": spec.version}
    tags = {"robot_type": spec.robot_type, "control_mode": spec.control_mode}
    info.update({name: value for name, value in tags.items() if value is not ABSENT})
    info |= {
        "total_episodes": n_episodes,
        "total_frames": n_frames,
        "total_tasks": len(spec.tasks),
    }
    v3 = spec.version == "v3.0"
    if not v3:
        info["total_videos"] = n_episodes * len(spec.cameras)
        info["total_chunks"] = math.ceil(n_episodes / spec.chunks_size)
    info["chunks_size"] = spec.chunks_size
    if v3:
        info |= {"data_files_size_in_mb": 100, "video_files_size_in_mb": 500}
    video_path = _VIDEO_PATH_V3 if v3 else _VIDEO_PATH_V2
    return info | {
        "fps": spec.fps,
        "splits": {"train": f"0:{n_episodes}"},
        "data_path": DATA_PATH_V3 if v3 else DATA_PATH_V2,
        "video_path": video_path if spec.cameras else None,
        "features": _features(spec, columns),
    }


def _features(spec: DatasetSpec, columns: Columns) -> dict[str, Any]:
    names = {spec.state_feature: spec.state_names, spec.action_feature: spec.action_names}
    features: dict[str, Any] = {}
    for name, values in columns.items():
        if values.ndim == 1:
            features[name] = {"dtype": values.dtype.name, "shape": [1], "names": None}
            continue
        width = values.shape[1]
        dims = names.get(name) or tuple(f"dim_{d}" for d in range(width))
        features[name] = {"dtype": values.dtype.name, "shape": [width], "names": list(dims)}
    return features | {camera: _camera(spec.fps) for camera in spec.cameras}


def _camera(fps: float) -> dict[str, Any]:
    return {
        "dtype": "video",
        "shape": [_IMAGE_HEIGHT, _IMAGE_WIDTH, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": _IMAGE_HEIGHT,
            "video.width": _IMAGE_WIDTH,
            "video.codec": "av1",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
        },
    }
