"""Frames: columns of chosen episodes as arrays, whatever files they lie in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentau_prep.lazy import names_of

if TYPE_CHECKING:
    from opentau_prep.frames.read import FrameBlock, iter_frames, read_frames
    from opentau_prep.frames.rows import DataPart, data_parts

__all__ = ["DataPart", "FrameBlock", "data_parts", "iter_frames", "read_frames"]

__getattr__ = names_of(
    __name__,
    {
        "DataPart": ".rows",
        "FrameBlock": ".read",
        "data_parts": ".rows",
        "iter_frames": ".read",
        "read_frames": ".read",
    },
)
