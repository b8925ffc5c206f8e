"""V: the video files against the frames; boxes are read, no picture is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from opentau_prep.metadata.info import INFO
from opentau_prep.metadata.paths import EPISODES_DIR
from opentau_prep.validate.checks.format import git_lfs_pull
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.rule import NEW, Rule
from opentau_prep.validate.view import relative

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from opentau_prep.validate.mp4 import VideoFacts
    from opentau_prep.validate.videos import Camera, Videos
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES"]

FPS_SHARE = 0.01
# LeRobot looks a frame up by its time and refuses one that is further off than its tolerance.
_HALF_A_FRAME = 0.5
_SHOWN = 3


def path_unusable(view: DatasetView) -> Iterator[Hit]:
    if (fault := view.fault("videos")) is not None:
        file, message = relative(fault, view.storage.url)
        yield hit(message, fault.hint or "", file=file)


def _none_is_here(videos: Videos) -> bool:
    return bool(videos.missing) and not videos.good and not videos.broken


def absent(view: DatasetView) -> Iterator[Hit]:
    if view.videos is not None and _none_is_here(view.videos):
        cameras = [camera.column for camera in view.videos.cameras]
        yield hit(
            f"none of the {len(view.videos.missing):,} video files of {listed(cameras)} is here",
            file="videos",
        )


def missing(view: DatasetView) -> Iterator[Hit]:
    videos, table = view.videos, view.episodes
    if videos is None or table is None or _none_is_here(videos):
        return
    for camera in videos.cameras:
        gone = [rel for rel in dict.fromkeys(camera.files) if rel in videos.missing]
        if gone:
            episodes = [
                episode
                for episode, rel in zip(table.episode_index, camera.files, strict=False)
                if rel in videos.missing
            ]
            yield hit(
                f"{len(gone):,} of {len(set(camera.files)):,} video files are missing:"
                f" {listed(gone, _SHOWN)}",
                file="videos",
                column=camera.column,
                episodes=episodes,
            )


def unreadable(view: DatasetView) -> Iterator[Hit]:
    for rel, fault in (view.videos.broken if view.videos else {}).items():
        yield hit(fault.message, fault.hint or "", file=rel, command=git_lfs_pull(view, fault))


def _expected(view: DatasetView, camera: Camera) -> dict[str, tuple[int, int]]:
    """Return file -> fewest and most rows of its episodes, by the table and by v2.x data files.

    Where the two disagree E004 says so, and the video need agree with one of them only.
    """
    table, good = view.episodes, view.footers.good if view.footers else {}
    rows: dict[str, tuple[int, int]] = {}
    if table is None:
        return rows
    data = ["" for _ in camera.files] if view.meta.is_v3 else view.data_paths or ()
    for rel, length, own in zip(camera.files, table.length.tolist(), data, strict=False):
        low, high = rows.get(rel, (0, 0))
        on_disk = good[own].rows if own in good else length
        rows[rel] = (low + min(length, on_disk), high + max(length, on_disk))
    return rows


def _files(view: DatasetView) -> Iterator[tuple[Camera, str, VideoFacts, tuple[int, int]]]:
    videos = view.videos
    for camera in videos.cameras if videos is not None else ():
        for rel, rows in _expected(view, camera).items():
            facts = videos.good.get(rel) if videos is not None else None
            if facts is not None:
                yield camera, rel, facts, rows


def too_few_frames(view: DatasetView) -> Iterator[Hit]:
    yield from _frames_differ(view, fewer=True)


def too_many_frames(view: DatasetView) -> Iterator[Hit]:
    yield from _frames_differ(view, fewer=False)


def _frames_differ(view: DatasetView, *, fewer: bool) -> Iterator[Hit]:
    wrong: dict[str, list[tuple[str, VideoFacts, int]]] = {}
    for camera, rel, facts, (low, high) in _files(view):
        if facts.frames < low if fewer else facts.frames > high:
            wrong.setdefault(camera.column, []).append((rel, facts, low if fewer else high))
    for column, some in wrong.items():
        words = [f"{rel} ({facts.frames:,} frames for {n:,} rows)" for rel, facts, n in some]
        yield hit(
            f"{len(some):,} video files have {'fewer' if fewer else 'more'} frames than their"
            f" episodes have rows: {listed(words, _SHOWN)}",
            file="videos",
            column=column,
        )


def rate_differs(view: DatasetView) -> Iterator[Hit]:
    wrong: dict[str, list[tuple[str, float]]] = {}
    for camera, rel, facts, _ in _files(view):
        if view.fps and facts.fps and abs(facts.fps / view.fps - 1) > FPS_SHARE:
            wrong.setdefault(camera.column, []).append((rel, facts.fps))
    for column, some in wrong.items():
        rates = sorted({f"{fps:.4g}" for _, fps in some})
        yield hit(
            f"{len(some):,} video files play at {listed(rates, _SHOWN)} frames per second, the"
            f" dataset has {view.fps:g}: {listed([rel for rel, _ in some], _SHOWN)}",
            file="videos",
            column=column,
        )


def spans_wrong(view: DatasetView) -> Iterator[Hit]:
    table, fps = view.episodes, view.fps
    for camera in view.videos.cameras if view.videos is not None else ():
        if camera.spans is None or table is None or not fps or len(camera.spans) != len(table):
            continue
        for wrong, what in _span_faults(view, camera, camera.spans, table.length / fps, fps):
            if wrong.any():
                yield hit(
                    f"{what} in {int(wrong.sum()):,} episodes",
                    file=EPISODES_DIR,
                    column=f"videos/{camera.column}",
                    episodes=table.episode_index[wrong],
                )


def _span_faults(
    view: DatasetView,
    camera: Camera,
    spans: NDArray[np.float64],
    seconds: NDArray[np.float64],
    fps: float,
) -> Iterator[tuple[NDArray[np.bool_], str]]:
    slack = _HALF_A_FRAME / fps
    length = np.abs(spans[:, 1] - spans[:, 0] - seconds) > slack
    yield length, "to_timestamp - from_timestamp is not length / fps"
    # A file that lacks frames or plays at another rate is decided by V004 and V006.
    whole = {
        rel: facts.seconds
        for own, rel, facts, (rows, _) in _files(view)
        if own is camera and facts.frames >= rows and abs((facts.fps or fps) / fps - 1) <= FPS_SHARE
    }
    known = np.array([whole.get(rel, np.inf) for rel in camera.files])
    beyond = ~length & (spans[:, 1] > known + slack)
    yield beyond, "to_timestamp is after the end of the video file"
    # Where an episode begins follows from those before it in the same file.
    starts = np.zeros(len(spans))
    reached: dict[str, float] = {}
    for i, rel in enumerate(camera.files):
        starts[i] = reached.get(rel, 0.0)
        reached[rel] = spans[i, 1]
    yield (
        ~length & ~beyond & (np.abs(spans[:, 0] - starts) > slack),
        ("from_timestamp is not where the episode before it ends in the file"),
    )


def columns_missing(view: DatasetView) -> Iterator[Hit]:
    if view.videos is None or not view.meta.is_v3:
        return
    known = {camera.column: camera for camera in view.videos.cameras}
    declared = [n for n, feature in (view.features or {}).items() if feature.dtype == "video"]
    lacking = [n for n in declared if n not in known or known[n].spans is None]
    if lacking:
        yield hit(
            f"has no usable videos/... columns of {listed(lacking)} (chunk_index, file_index,"
            " from_timestamp, to_timestamp)",
            file=EPISODES_DIR,
        )


def size_differs(view: DatasetView) -> Iterator[Hit]:
    for camera, sizes in _by_camera(view, lambda facts: (facts.height, facts.width)).items():
        shape = (view.features or {})[camera].shape
        declared = tuple(sorted(shape)[-2:]) if len(shape) == 3 else None
        odd = {size: files for size, files in sizes.items() if declared != tuple(sorted(size))}
        if odd and declared:
            words = [f"{w} x {h} in {files[0]}" for (h, w), files in odd.items()]
            yield hit(
                f"info.json says the shape {shape}, the videos are {listed(words, _SHOWN)}",
                file="videos",
                column=camera,
            )


def codec_differs(view: DatasetView) -> Iterator[Hit]:
    raw = (view.info or {}).get("features")
    for camera, codecs in _by_camera(view, lambda facts: facts.codec).items():
        feature = raw.get(camera) if isinstance(raw, Mapping) else None
        declared = _declared_codec(feature if isinstance(feature, Mapping) else {})
        if len(codecs) > 1:
            words = [f"{codec} in {len(files):,} files" for codec, files in codecs.items()]
            yield hit(
                f"its videos have several codecs: {listed(words)}", file="videos", column=camera
            )
        elif declared is not None and declared not in codecs:
            found = next(iter(codecs))
            yield hit(
                f"info.json says {declared}, the videos are {found}", file=INFO, column=camera
            )


def _by_camera(view: DatasetView, of: Any) -> dict[str, dict[Any, list[str]]]:
    found: dict[str, dict[Any, list[str]]] = {}
    for camera, rel, facts, _ in _files(view):
        found.setdefault(camera.column, {}).setdefault(of(facts), []).append(rel)
    return found


# Names that tools write for one codec, besides ffmpeg's.
_ALIASES = {"h265": "hevc", "avc": "h264", "avc1": "h264", "libx264": "h264", "libsvtav1": "av1"}


def _declared_codec(feature: Mapping[str, Any]) -> str | None:
    for name in ("info", "video_info"):
        details = feature.get(name)
        codec = details.get("video.codec") if isinstance(details, Mapping) else None
        if isinstance(codec, str):
            return _ALIASES.get(codec.lower(), codec.lower())
    return None


_AGAIN = "Restore the files from their source, or encode the episodes again."
RULES: Sequence[Rule] = (
    Rule(
        "V001",
        "videos-absent",
        "warning",
        "Cameras are declared as video, and not one of their files is here: `meta/` and `data/`"
        " were copied alone, as `--download` does.",
        "Stats, heads, tokens and speed need no video. OpenTau, LeRobot and openpi do: they ask"
        " the hub for it, or stop.",
        "Copy `videos/` too before training; ignore V001 where only numbers are prepared.",
        absent,
    ),
    Rule(
        "V002",
        "video-missing",
        "error",
        "Video files of some episodes or cameras are not there, others are.",
        "OpenTau, LeRobot and openpi look for every file when they open the dataset: they ask"
        " the hub for it, or stop.",
        "Download them again, or list the episodes in excluded_episodes.",
        missing,
    ),
    Rule(
        "V003",
        "video-unreadable",
        "error",
        "A video file is empty, a Git LFS pointer, cut off, has no index (a recorder that was"
        " killed), or is no MP4.",
        "No frame of it can be decoded. LeRobot and openpi stop when they first draw one, hours"
        " into a run; OpenTau draws other frames in their place, and stops after nine tries in"
        " a row.",
        _AGAIN,
        unreadable,
    ),
    Rule(
        "V004",
        "video-too-short",
        "error",
        "A video holds fewer frames than its episodes have rows (v2.x: one file per episode; v3.0:"
        " the episodes that share the file).",
        "The last rows have no picture. LeRobot and openpi stop when they first draw one;"
        " OpenTau draws other frames in their place.",
        _AGAIN,
        too_few_frames,
    ),
    Rule(
        "V005",
        "video-too-long",
        "warning",
        "A video holds more frames than its episodes have rows.",
        "Rows were dropped and frames were not: pictures may belong to other rows than they are"
        " paired with.",
        "Compare the first and the last frame with the state; encode the episode again.",
        too_many_frames,
    ),
    Rule(
        "V006",
        "video-rate",
        "error",
        f"A video plays at another rate than the dataset's `fps`, by over {FPS_SHARE:.0%} (by the"
        " file's own times, not by what info.json declares).",
        "OpenTau, LeRobot and openpi look a picture up by its time: it drifts from the row, or"
        " is refused.",
        "Encode the video at `fps`, or correct `fps`.",
        rate_differs,
    ),
    Rule(
        "V007",
        "video-spans",
        "error",
        "v3.0: an episode's from_timestamp and to_timestamp are not its length, run past the end of"
        " the file, or overlap the episode before it by half a frame or more.",
        "OpenTau and LeRobot show pictures of another episode, silently.",
        "Write the columns again from the lengths and `fps`.",
        spans_wrong,
        formats=NEW,
    ),
    Rule(
        "V008",
        "video-columns-missing",
        "error",
        "v3.0: the episodes table lacks a camera's chunk_index, file_index, from_timestamp or"
        " to_timestamp.",
        "LeRobot raises a KeyError. OpenTau takes a missing from_timestamp for 0 and shows"
        " pictures of the file's first episode, silently.",
        "Write the columns again, or remove the camera from info.json.",
        columns_missing,
        formats=NEW,
    ),
    Rule(
        "V009",
        "video-size",
        "warning",
        "The pictures are larger or smaller than the declared shape.",
        "A model that is built from info.json gets other pictures than it expects.",
        "Correct the shape in info.json.",
        size_differs,
    ),
    Rule(
        "V010",
        "video-codec",
        "note",
        "Videos of one camera have several codecs, or another one than `video.codec` of info.json.",
        "A decoder that plays some of them may not play the others (AV1 needs FFmpeg 5 or newer).",
        "Encode the camera's videos with one codec.",
        codec_differs,
    ),
    Rule(
        "V011",
        "video-path-unusable",
        "error",
        "`video_path` is not a template, has fields that this version does not know, or leads out"
        " of the dataset.",
        "No picture can be found.",
        "Write LeRobot's default template for the version.",
        path_unusable,
    ),
)
