"""What the boxes of an MP4 file say of its video: frames, rate, size, codec; nothing is decoded.

Box layouts: ISO/IEC 14496-12. A file is read in two or three byte ranges, in a store too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from opentau_prep.errors import DataError
from opentau_prep.storage.parquet import LFS_MAGIC

__all__ = ["VideoFacts", "read_video"]

Reader = Callable[[int, int], bytes]
"""Returns the bytes from a first position to one past the last."""

# Enough for ftyp, free and the header of mdat, and for a whole short file with moov in front.
_HEAD_BYTES = 4096
_MOST_BOXES = 10_000
_MOST_MOOV_BYTES = 256 << 20
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
_CODECS = {
    "avc1": "h264",
    "avc3": "h264",
    "hev1": "hevc",
    "hvc1": "hevc",
    "av01": "av1",
    "vp08": "vp8",
    "vp09": "vp9",
    "mp4v": "mpeg4",
    "png ": "png",
    "jpeg": "mjpeg",
}


@dataclass(frozen=True)
class VideoFacts:
    """The video track of a file.

    Attributes:
        frames: How many frames it holds.
        seconds: How long it plays.
        width: Pixels.
        height: Pixels.
        codec: As ffmpeg names it, such as `h264` or `av1`; else the four characters of the file.
    """

    frames: int
    seconds: float
    width: int
    height: int
    codec: str

    @property
    def fps(self) -> float | None:
        """Frames per second; None for a video of no length."""
        return self.frames / self.seconds if self.seconds > 0 else None


@dataclass(frozen=True)
class _Box:
    kind: bytes
    start: int
    body: int
    end: int


def read_video(read: Reader, size: int, where: str) -> VideoFacts:
    """Return what a file's boxes say.

    Args:
        read: Reads a byte range.
        size: The file's size in bytes.
        where: The file, for errors.

    Raises:
        DataError: The file is empty, a Git LFS pointer, cut off, no MP4, or holds no video.
    """
    head = read(0, min(size, _HEAD_BYTES)) if size else b""
    _check_head(head, size, where)

    def bytes_of(start: int, stop: int) -> bytes:
        return head[start:stop] if stop <= len(head) else read(start, stop)

    moov, payload, fragments = b"", 0, []
    for box in _top_boxes(bytes_of, size, where):
        if box.kind == b"moov":
            if box.end - box.body > _MOST_MOOV_BYTES:
                raise DataError("has an index of over 256 MiB: it is damaged", where=where)
            moov = bytes_of(box.body, box.end)
        elif box.kind == b"mdat":
            payload += box.end - box.body
        elif box.kind == b"moof":
            fragments.append(bytes_of(box.body, box.end))
    if not moov:
        raise DataError("has no index (moov): its writing was not finished", where=where)
    try:
        return _facts(moov, payload, fragments, where)
    except (struct.error, IndexError, KeyError, ValueError) as error:
        raise DataError("has a damaged index (moov)", where=where) from error


def _check_head(head: bytes, size: int, where: str) -> None:
    if not size:
        raise DataError("is empty (0 bytes)", where=where)
    if head.startswith(LFS_MAGIC):
        raise DataError(
            f"is a Git LFS pointer ({size} bytes of text), not the video",
            where=where,
            hint="Run `git lfs pull` in the dataset, or download it from the hub.",
        )
    if size >= 8 and head[4:8] not in _FIRST_BOXES:
        raise DataError("is no MP4 file", where=where)


def _top_boxes(bytes_of: Reader, size: int, where: str) -> Iterator[_Box]:
    at = 0
    for _ in range(_MOST_BOXES):
        if at == size:
            return
        header = bytes_of(at, min(at + 16, size))
        if len(header) < 8:
            raise DataError(f"is cut off at byte {size:,}, within a box", where=where)
        length, kind = struct.unpack(">I4s", header[:8])
        body = at + 8
        if length == 1:
            if len(header) < 16:
                raise DataError(f"is cut off at byte {size:,}, within a box", where=where)
            length, body = struct.unpack(">Q", header[8:])[0], at + 16
        end = size if length == 0 else at + length
        if end < body:
            raise DataError(f"has a damaged box at byte {at:,}", where=where)
        if end > size:
            raise DataError(
                f"is cut off: {size:,} of at least {end:,} bytes are there", where=where
            )
        yield _Box(kind, at, body, end)
        at = end
    raise DataError("has too many boxes: it is damaged", where=where)


def _boxes(data: bytes) -> dict[bytes, list[bytes]]:
    """Return the boxes within a box: kind -> bodies."""
    found: dict[bytes, list[bytes]] = {}
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = at + 8
        if length == 1:
            length, body = struct.unpack_from(">Q", data, body)[0], at + 16
        end = len(data) if length == 0 else at + length
        if end < body or end > len(data):
            raise ValueError("a box runs past the one that holds it")
        found.setdefault(kind, []).append(data[body:end])
        at = end
    return found


def _facts(moov: bytes, payload: int, fragments: list[bytes], where: str) -> VideoFacts:
    inside = _boxes(moov)
    for track in inside.get(b"trak", []):
        media = _boxes(_boxes(track)[b"mdia"][0]) if b"mdia" in _boxes(track) else {}
        handler = media.get(b"hdlr", [b""])[0]
        if handler[8:12] != b"vide":
            continue
        table = _boxes(_boxes(media[b"minf"][0])[b"stbl"][0])
        scale = _timescale(media[b"mdhd"][0])
        codec, width, height = _sample_entry(table[b"stsd"][0])
        counts, steps = _pairs(table[b"stts"][0])
        frames, ticks = int(counts.sum()), int((counts * steps).sum())
        sizes, n_sizes = _sizes(table)
        if b"mvex" in inside and fragments:
            frames, ticks = _fragmented(inside, fragments, frames, ticks)
        elif n_sizes != frames:
            raise DataError(
                f"contradicts itself: {frames:,} frames have times, {n_sizes:,} have data",
                where=where,
            )
        elif sizes > payload:
            raise DataError(
                f"is cut off: its frames have {sizes:,} bytes, {payload:,} are there", where=where
            )
        if not frames:
            raise DataError("holds no frame", where=where)
        return VideoFacts(frames, ticks / scale if scale else 0.0, width, height, codec)
    raise DataError("holds no video", where=where)


def _timescale(mdhd: bytes) -> int:
    return int(struct.unpack_from(">I", mdhd, 20 if mdhd[0] == 1 else 12)[0])


def _sample_entry(stsd: bytes) -> tuple[str, int, int]:
    kind = stsd[12:16].decode("latin-1")
    width, height = struct.unpack_from(">HH", stsd, 8 + 8 + 24)
    return _CODECS.get(kind, kind), width, height


def _pairs(box: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return the two columns of a table of pairs of whole numbers."""
    (n,) = struct.unpack_from(">I", box, 4)
    pairs = np.frombuffer(box, ">u4", 2 * n, offset=8).astype(np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _sizes(table: dict[bytes, list[bytes]]) -> tuple[int, int]:
    """Return how many bytes the frames have together, and how many frames have a size."""
    if b"stsz" in table:
        box = table[b"stsz"][0]
        each, n = struct.unpack_from(">II", box, 4)
        if each:
            return each * n, n
        return int(np.frombuffer(box, ">u4", n, offset=12).sum(dtype=np.int64)), n
    box = table[b"stz2"][0]
    return 0, int(struct.unpack_from(">I", box, 8)[0])


def _fragmented(
    moov: dict[bytes, list[bytes]], fragments: list[bytes], frames: int, ticks: int
) -> tuple[int, int]:
    """Add the frames of a fragmented file, whose tables are spread over it."""
    extends = _boxes(moov[b"mvex"][0]).get(b"trex", [])
    usual = struct.unpack_from(">I", extends[0], 12)[0] if extends else 0
    for fragment in fragments:
        for track in _boxes(fragment).get(b"traf", []):
            inside = _boxes(track)
            step = _fragment_step(inside[b"tfhd"][0], usual)
            for run in inside.get(b"trun", []):
                flags, n = struct.unpack_from(">II", run, 0)
                frames += n
                ticks += _run_ticks(run, flags & 0xFFFFFF, n, step)
    return frames, ticks


def _fragment_step(tfhd: bytes, usual: int) -> int:
    (flags,) = struct.unpack_from(">I", tfhd, 0)
    if not flags & 0x08:
        return usual
    at = 8 + (8 if flags & 0x01 else 0) + (4 if flags & 0x02 else 0)
    return int(struct.unpack_from(">I", tfhd, at)[0])


def _run_ticks(run: bytes, flags: int, n: int, step: int) -> int:
    if not flags & 0x100:
        return n * step
    at = 8 + (4 if flags & 0x01 else 0) + (4 if flags & 0x04 else 0)
    fields = sum(bool(flags & bit) for bit in (0x100, 0x200, 0x400, 0x800))
    rows = np.frombuffer(run, ">u4", n * fields, offset=at).reshape(n, fields)
    return int(rows[:, 0].sum(dtype=np.int64))
