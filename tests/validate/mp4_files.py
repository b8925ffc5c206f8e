"""MP4 files made of boxes by hand: an index as encoders write it, and frames of one byte each."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

SCALE = 15360


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, *parts: bytes) -> bytes:
    return box(kind, bytes(4), *parts)


def numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def mp4(
    frames: int,
    fps: float,
    *,
    size: tuple[int, int] = (640, 480),
    codec: bytes = b"av01",
    steps: Sequence[tuple[int, int]] | None = None,
    moov_first: bool = False,
    handler: bytes = b"vide",
) -> bytes:
    """Return a file; `steps` are the (frames, ticks each) of its time table."""
    step = round(SCALE / fps)
    steps = [(frames, step)] if steps is None else steps
    entry = box(codec, bytes(24), struct.pack(">HH", *size), bytes(50))
    table = box(
        b"stbl",
        full(b"stsd", numbers(1), entry),
        full(b"stts", numbers(len(steps), *(n for pair in steps for n in pair))),
        full(b"stsz", numbers(0, frames, *([1] * frames))),
    )
    media = box(
        b"mdia",
        full(b"mdhd", numbers(0, 0, SCALE, frames * step, 0)),
        full(b"hdlr", numbers(0), handler, bytes(13)),
        box(b"minf", table),
    )
    moov = box(b"moov", full(b"mvhd", bytes(96)), box(b"trak", full(b"tkhd", bytes(80)), media))
    mdat = box(b"mdat", bytes(frames))
    rest = moov + mdat if moov_first else mdat + moov
    return box(b"ftyp", b"isom", bytes(4), b"isom") + box(b"free") + rest


def write_videos(root: Path, **options: object) -> None:
    """Write the video files that a dataset's own metadata promise."""
    info = json.loads((root / "meta/info.json").read_text())
    cameras = [n for n, f in info["features"].items() if f["dtype"] == "video"]
    for rel, frames in promised(root, info, cameras).items():
        (root / rel).parent.mkdir(parents=True, exist_ok=True)
        (root / rel).write_bytes(mp4(frames, info["fps"], **options))  # type: ignore[arg-type]


def promised(root: Path, info: dict, cameras: Sequence[str]) -> dict[str, int]:
    """Return file -> frames, by the templates and tables themselves."""
    found: dict[str, int] = {}
    template = info.get("video_path") or ""
    if info["codebase_version"] == "v3.0":
        rows = [
            row
            for file in sorted((root / "meta/episodes").rglob("*.parquet"))
            for row in pq.read_table(file).to_pylist()
        ]
    else:
        lines = (root / "meta/episodes.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
    for camera in cameras:
        for row in rows:
            number = row["episode_index"]
            rel = template.format(
                video_key=camera,
                episode_chunk=number // info["chunks_size"],
                episode_index=number,
                chunk_index=row.get(f"videos/{camera}/chunk_index", 0),
                file_index=row.get(f"videos/{camera}/file_index", 0),
            )
            found[rel] = found.get(rel, 0) + row["length"]
    return found
