"""Normalize values with the stats of a norm head, in float32, bit for bit as the policy does.

Nothing is clipped: values outside the head's range end up outside [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from opentau_prep.errors import ConfigError, MetadataError

__all__ = [
    "DEFAULT_CONFIG_VERSION",
    "Convention",
    "Mode",
    "normalize",
    "normalize_mean_std",
    "unnormalize",
    "unnormalize_mean_std",
]

Mode = Literal["MIN_MAX", "QUANTILE", "MEAN_STD"]
Float32 = NDArray[np.float32]

DEFAULT_CONFIG_VERSION = 1

_STAT_NAMES: Mapping[str, tuple[str, str]] = {
    "MIN_MAX": ("min", "max"),
    "QUANTILE": ("q01", "q99"),
    "MEAN_STD": ("mean", "std"),
}
# Values that are worked on at a time: a block goes through all steps while it is in the cache.
_BLOCK_VALUES = 1 << 16

_Step = tuple[np.ufunc, Any]


@dataclass(frozen=True)
class Convention:
    """How a policy normalizes: fixed by its mode and its config version.

    Attributes:
        mode: Which pair of stats is used.
        epsilon: Added to every divisor; ranges (or stds) below it count as zero.
        centers_zero_range: Whether a dim without range is mapped to 0 (else to -1) at its only
            value. Without meaning under MEAN_STD.
    """

    mode: Mode
    epsilon: float
    centers_zero_range: bool

    @classmethod
    def of(cls, mode: Mode, config_version: int = DEFAULT_CONFIG_VERSION) -> Convention:
        """Return the convention of a policy config: version 0, or 1 and above.

        Raises:
            ConfigError: Unknown mode, or a version that is not an integer >= 0.
        """
        if mode not in _STAT_NAMES:
            known = ", ".join(_STAT_NAMES)
            raise ConfigError(f"unknown normalization mode {mode!r}: choose one of {known}")
        is_int = isinstance(config_version, (int, np.integer))
        if not is_int or isinstance(config_version, bool) or config_version < 0:
            raise ConfigError(f"config_version must be an integer >= 0, not {config_version!r}")
        if config_version == 0:
            return cls(mode, 1e-8, centers_zero_range=False)
        return cls(mode, 1e-6, centers_zero_range=True)

    @property
    def stat_names(self) -> tuple[str, str]:
        """The names of the two stats it needs, such as `("min", "max")`."""
        return _STAT_NAMES[self.mode]

    def pick(self, stats: Mapping[str, ArrayLike]) -> tuple[ArrayLike, ArrayLike]:
        """Return its two stats out of a feature's; there is no fallback to other ones.

        Raises:
            MetadataError: One of them is missing.
        """
        lacking = [name for name in self.stat_names if name not in stats]
        if lacking:
            raise MetadataError(
                f"{self.mode} normalization needs {', '.join(lacking)}; there are "
                f"{', '.join(stats) or 'no stats'}",
                hint="A quantile is in a head only if every member has it: the command `stats` adds"
                " it to the datasets that lack it.",
            )
        first, second = self.stat_names
        return stats[first], stats[second]

    def normalize(
        self, values: ArrayLike, first: ArrayLike, second: ArrayLike, *, out: Float32 | None = None
    ) -> Float32:
        """Return `values` normalized with its two stats; see `normalize` for shapes and errors."""
        offset, divisor, shift = self._factors(first, second)
        steps: list[_Step] = [(np.subtract, offset)]
        if shift is not None:
            steps.append((np.add, shift))
        steps.append((np.divide, divisor))
        if self.mode != "MEAN_STD":
            steps += [(np.multiply, np.float32(2)), (np.subtract, np.float32(1))]
        return _run(steps, values, offset, out)

    def unnormalize(
        self, values: ArrayLike, first: ArrayLike, second: ArrayLike, *, out: Float32 | None = None
    ) -> Float32:
        """Return the inverse of `normalize`."""
        offset, divisor, shift = self._factors(first, second)
        steps: list[_Step] = []
        if self.mode != "MEAN_STD":
            steps += [(np.add, np.float32(1)), (np.divide, np.float32(2))]
        # The shift is undone last, as the policy does: where a dim has no range, the sum with the
        # offset has rounded by then.
        steps += [(np.multiply, divisor), (np.add, offset)]
        if shift is not None:
            steps.append((np.subtract, shift))
        return _run(steps, values, offset, out)

    def affine(
        self, first: ArrayLike, second: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (center, half), float64: but for rounding, `normalize` is (x - center) / half.

        Raises:
            MetadataError: A stat is missing (None) or not finite.
        """
        offset, divisor, shift = self._factors(first, second)
        start, width = offset.astype(np.float64), divisor.astype(np.float64)
        if self.mode == "MEAN_STD":
            return start, width
        moved = start if shift is None else start - shift
        return moved + width / 2, width / 2

    def _factors(
        self, first: ArrayLike, second: ArrayLike
    ) -> tuple[Float32, Float32, Float32 | None]:
        """Return what is subtracted, what is divided by, and the shift of zero ranges, if any."""
        names = self.stat_names
        offset, other = (
            _checked_stat(stat, name) for stat, name in zip((first, second), names, strict=True)
        )
        if offset.shape != other.shape:
            raise ConfigError(
                f"{names[0]} has shape {offset.shape}, but {names[1]} has {other.shape}"
            )
        epsilon = np.float32(self.epsilon)
        if self.mode == "MEAN_STD":
            return offset, np.where(other < epsilon, np.float32(1), other) + epsilon, None
        with np.errstate(over="ignore"):
            spread = _finite(other - offset, f"the range from {names[0]} to {names[1]}")
        size = np.where(np.abs(spread) < epsilon, np.float32(1), spread)
        shift = np.float32(0.5) * (size - spread)
        # A shift of zero everywhere never changes a bit of the result.
        is_shifted = self.centers_zero_range and bool(shift.any())
        return offset, size + epsilon, shift if is_shifted else None


def normalize(
    values: ArrayLike,
    lo: ArrayLike,
    hi: ArrayLike,
    *,
    config_version: int = DEFAULT_CONFIG_VERSION,
    out: Float32 | None = None,
) -> Float32:
    """Return values mapped from [lo, hi] to about [-1, 1], without clipping.

    With r = hi - lo, e = 1e-6 (1e-8 under version 0) and d = 1 where |r| < e, else r:
    version 0: (x - lo) / (d + e) * 2 - 1; version 1: ((x - lo) + (d - r) / 2) / (d + e) * 2 - 1.
    A dim without range so becomes -1 under version 0 and 0 under version 1.

    Args:
        values: (..., D), dataset units; anything with `__array__`; taken as float32.
        lo: (D,) minimum or q01 of the head, or of more axes that broadcast to `values`, such as
            (3, 1, 1) for images (..., 3, H, W).
        hi: Maximum or q99, of the same shape.
        config_version: Of the policy's config; every version above 1 is like 1.
        out: Where to write, float32 of the shape of `values`; may be `values` itself. Memory
            beyond it is a cache-sized block at most.

    Returns:
        float32 of the shape of `values`; `out` when given. Non-finite values stay non-finite.

    Raises:
        ConfigError: Unknown version; widths that do not match; an unusable `out`.
        MetadataError: A stat is missing (None) or not finite.

    Example:
        >>> normalize([[0.0, 5.0], [10.0, 5.0]], [0, 5], [10, 5], config_version=0).round(4)
        array([[-1., -1.],
               [ 1., -1.]], dtype=float32)

    Source: OpenTau 0b153a9, `Normalize`, pinned by recorded values.
    """
    return Convention.of("MIN_MAX", config_version).normalize(values, lo, hi, out=out)


def unnormalize(
    values: ArrayLike,
    lo: ArrayLike,
    hi: ArrayLike,
    *,
    config_version: int = DEFAULT_CONFIG_VERSION,
    out: Float32 | None = None,
) -> Float32:
    """Return the inverse of `normalize`: values in dataset units; arguments and errors alike."""
    return Convention.of("MIN_MAX", config_version).unnormalize(values, lo, hi, out=out)


def normalize_mean_std(
    values: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    *,
    config_version: int = DEFAULT_CONFIG_VERSION,
    out: Float32 | None = None,
) -> Float32:
    """Return (values - mean) / (s + e), with s = 1 where std < e, else std.

    Shapes, e and errors are those of `normalize`.
    """
    return Convention.of("MEAN_STD", config_version).normalize(values, mean, std, out=out)


def unnormalize_mean_std(
    values: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    *,
    config_version: int = DEFAULT_CONFIG_VERSION,
    out: Float32 | None = None,
) -> Float32:
    """Return the inverse of `normalize_mean_std`; arguments and errors alike."""
    return Convention.of("MEAN_STD", config_version).unnormalize(values, mean, std, out=out)


def _run(steps: list[_Step], values: ArrayLike, stat: Float32, out: Float32 | None) -> Float32:
    source = _as_array(values, "values")
    _check_shapes(source.shape, stat.shape)
    target = _checked_out(out, source.shape)
    for block in _blocks(source.shape, stat.ndim):
        part = target[block]
        current: NDArray[Any] = source[block]
        for ufunc, operand in steps:
            ufunc(current, operand, out=part, dtype=np.float32, casting="same_kind")
            current = part
    return target


def _blocks(shape: tuple[int, ...], stat_ndim: int) -> Iterator[Any]:
    """Yield slices of the first axis, or everything where the stats run along that axis too."""
    if len(shape) <= stat_ndim or not all(shape):
        yield ...
        return
    rows = max(1, _BLOCK_VALUES // int(np.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        yield slice(start, start + rows)


def _as_array(values: ArrayLike, what: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{what} cannot be read as an array of numbers: {error}") from error
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise ConfigError(f"{what} must be numbers of shape (..., D), not {array.dtype.name}")
    return array


def _checked_stat(stat: ArrayLike | None, name: str) -> Float32:
    if stat is None:
        raise MetadataError(f"the stat {name} is missing")
    # A range that float32 cannot hold becomes infinite here and is refused like one.
    with np.errstate(over="ignore"):
        return _finite(_as_array(stat, name).astype(np.float32), name)


def _finite(array: Float32, what: str) -> Float32:
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise MetadataError(
            f"{what} is not finite in dim(s) {', '.join(map(str, bad.tolist()))}",
            hint="Recompute the stats, or select other columns with state_index or action_index.",
        )
    return array


def _check_shapes(values: tuple[int, ...], stat: tuple[int, ...]) -> None:
    try:
        fits = np.broadcast_shapes(values, stat) == values
    except ValueError:
        fits = False
    # One-dimensional stats never stretch: a width of 1 against D is a mistake, not a broadcast.
    if not fits or (len(stat) == 1 and stat[0] != values[-1]):
        raise ConfigError(f"stats of shape {stat} do not fit values of shape {values}")


def _checked_out(out: Float32 | None, shape: tuple[int, ...]) -> Float32:
    if out is None:
        return np.empty(shape, dtype=np.float32)
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape:
        found = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else type(out)
        raise ConfigError(f"out must be float32 of shape {shape}, not {found}")
    return out
