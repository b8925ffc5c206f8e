"""Frames: columns of chosen episodes as arrays, whatever files they lie in."""

from opentau_prep.frames.read import FrameBlock, iter_frames, read_frames
from opentau_prep.frames.rows import DataPart, data_parts

__all__ = ["DataPart", "FrameBlock", "data_parts", "iter_frames", "read_frames"]
