"""What decides the norm heads of a mixture, besides the mixture itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from opentau_prep.errors import ConfigError

__all__ = ["HeadOptions", "QuantileSource"]

QuantileSource = Literal["pooled", "sketch"]


@dataclass(frozen=True)
class HeadOptions:
    """How wide heads are, and where their quantiles come from.

    Attributes:
        max_state_dim: Width of the state in the policy.
        max_action_dim: Width of the actions in the policy.
        num_cams: Cameras that have stats in the heads.
        quantiles: `pooled` (the weighted mean of the members' quantiles, as training computes
            them) or `sketch` (read from the merged sketches of the members' frames).
        truncate_dims: Cut states and actions that are too wide, rather than refuse them.
        chunk_size: Steps of an action chunk, where stats of delta actions are needed and there are
            some for several sizes; None takes the only one that there is.
    """

    max_state_dim: int = 32
    max_action_dim: int = 32
    num_cams: int = 0
    quantiles: QuantileSource = "pooled"
    truncate_dims: bool = False
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("max_state_dim", 1), ("max_action_dim", 1), ("num_cams", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} must be a whole number >= {least}, not {value!r}")
        if self.quantiles not in get_args(QuantileSource):
            known = " or ".join(get_args(QuantileSource))
            raise ConfigError(f"quantiles must be {known}, not {self.quantiles!r}")

    def as_json(self) -> dict[str, Any]:
        """Return the options JSON-ready."""
        return asdict(self)
