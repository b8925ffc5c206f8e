"""What decides a tokenizer, next to the mixture: the options of one fit."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from opentau_prep.errors import ConfigError
from opentau_prep.normalization import Convention, Mode
from opentau_prep.tokenizer.quantize import DEFAULT_HEADROOM

__all__ = [
    "AUTO_CEILING",
    "DEFAULT_CHUNK_SIZE",
    "PILOT_CHUNKS",
    "SWEEP_CHUNKS",
    "Auto",
    "FitOptions",
    "default_memory_bytes",
    "number_or_auto",
]

Auto = Literal["auto"]
Normalization = Literal["min_max", "quantile", "mean_std"]

# That of OpenTau's and openpi's default policies.
DEFAULT_CHUNK_SIZE = 50
PILOT_CHUNKS = 2_000
AUTO_CEILING = 32_000
SWEEP_CHUNKS = 4_000
HELD_OUT_CHUNKS = 4_000
# A dataset with few chunks is measured with this many, whatever its weight; of very many datasets
# with fewer each, since memory is that of all held-out chunks (50 KB each at 50 x 32).
HELD_OUT_PER_DATASET = 32
HELD_OUT_FOR_ALL = 16_000
_N_BYTES = 256
_MODES: Mapping[Normalization, Mode] = {
    "min_max": "MIN_MAX",
    "quantile": "QUANTILE",
    "mean_std": "MEAN_STD",
}
_CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


@dataclass(frozen=True)
class FitOptions:
    """The options of a fit.

    Attributes:
        chunk_size: Steps an action chunk, T.
        action_dim: Width of the policy's actions, D.
        total_chunks: Chunks to fit on, or `auto`: as many as still shorten held-out sequences, at
            most 32,000.
        vocab_size: Tokens in all.
        scale: Quantization steps a unit of DCT coefficient.
        max_token_length: Longest token in numbers, or `auto`: chosen on held-out chunks.
        seed: Of the split and of the draws.
        config_version: Of the policy's config; decides the normalization.
        normalization: Which two stats of a head the policy normalizes actions with: `min_max`,
            `quantile` (q01, q99) or `mean_std`.
        per_head_norm: Normalize each dataset with its own head; else all with one range.
        truncate_dims: Cut native dims beyond `action_dim`; else they are refused.
        headroom: How far `min_token` reaches: every chunk of normalized values within [-headroom,
            headroom] keeps all of its numbers; numbers beyond are clipped.
        holdout: Share of each dataset's episodes that is held out.
        memory_bytes: What the BPE trainer may take; None: half of the machine's memory.
        pilot: A quick look: at most 2,000 chunks.
        skip_fit: Sample, normalize and quantize only.
    """

    chunk_size: int
    action_dim: int = 32
    total_chunks: int | Auto = "auto"
    vocab_size: int = 2048
    scale: float = 10.0
    max_token_length: int | Auto = "auto"
    seed: int = 0
    config_version: int = 1
    normalization: Normalization = "min_max"
    per_head_norm: bool = True
    truncate_dims: bool = False
    headroom: float = DEFAULT_HEADROOM
    holdout: float = 0.1
    memory_bytes: int | None = None
    pilot: bool = False
    skip_fit: bool = False

    def __post_init__(self) -> None:
        for name in ("chunk_size", "action_dim", "total_chunks", "max_token_length"):
            value = getattr(self, name)
            if value != "auto" and (isinstance(value, str) or value < 1):
                raise ConfigError(f"must be at least 1, not {value}", where=name)
        self._check_normalization()
        for name in ("seed", "config_version"):
            if getattr(self, name) < 0:
                raise ConfigError(f"must not be negative: {getattr(self, name)}", where=name)
        if not 0 < self.scale < math.inf:
            raise ConfigError(f"must be a positive number, not {self.scale}", where="scale")
        if not 0 <= self.headroom < math.inf:
            raise ConfigError(f"must not be negative: {self.headroom}", where="headroom")
        if not 0 <= self.holdout < 1:
            raise ConfigError(
                f"must be at least 0 and below 1, not {self.holdout}", where="holdout"
            )
        if self.vocab_size < _N_BYTES:
            raise ConfigError(
                f"a vocabulary of {self.vocab_size} has no room for the {_N_BYTES} bytes",
                where="vocab_size",
                hint=f"Give at least {_N_BYTES + 1}.",
            )
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise ConfigError("must be positive", where="memory_budget")

    def _check_normalization(self) -> None:
        if self.normalization not in _MODES:
            raise ConfigError(
                f"unknown: {self.normalization!r}",
                where="normalization",
                hint=f"Use one of {', '.join(_MODES)}.",
            )
        if self.normalization != "min_max" and not self.per_head_norm:
            raise ConfigError(
                f"one range for all heads exists for min_max only, not for {self.normalization}",
                where="no_per_head_norm",
                hint="Leave out --no-per-head-norm.",
            )

    @property
    def convention(self) -> Convention:
        """How the policy normalizes its actions."""
        return Convention.of(_MODES[self.normalization], self.config_version)

    @property
    def memory_limit(self) -> int:
        """What the BPE trainer may take, in bytes."""
        return default_memory_bytes() if self.memory_bytes is None else self.memory_bytes

    @property
    def wanted_chunks(self) -> int:
        """Chunks to fit on if memory allows: what was asked for, or the ceiling of `auto`."""
        wanted = AUTO_CEILING if self.total_chunks == "auto" else self.total_chunks
        return min(wanted, PILOT_CHUNKS) if self.pilot else wanted

    @property
    def held_out_chunks(self) -> int:
        """Held-out chunks to measure on, in all."""
        return PILOT_CHUNKS // 4 if self.pilot else HELD_OUT_CHUNKS

    def parameters(self) -> dict[str, Any]:
        """Return what is on record of them, JSON-ready."""
        return asdict(self)


def number_or_auto(text: str, option: str) -> int | Auto:
    """Return a whole number or `auto`, as an option gives it.

    Raises:
        ConfigError: It is neither.
    """
    if text == "auto":
        return "auto"
    try:
        return int(text.replace("_", "").replace(",", ""))
    except ValueError as error:
        raise ConfigError(f"expected a number or auto, not {text!r}", where=option) from error


def default_memory_bytes() -> int:
    """Return half of the memory that this machine, or this container, has in all."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _CGROUP_LIMITS:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total // 2
