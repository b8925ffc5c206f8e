"""Normalization heads: one per (robot_type, control_mode), pooled from its members' stats."""

from opentau_prep.heads.build import NormHeads, build_norm_heads
from opentau_prep.heads.keys import compute_norm_key
from opentau_prep.heads.standardize import raw_dims, standardize_stats

__all__ = ["NormHeads", "build_norm_heads", "compute_norm_key", "raw_dims", "standardize_stats"]
