"""Which options a step runs with, decided once for its own command, `run`, `report` and `--fix`.

The first that says so decides: the command line, the training config around the mixture, the
options that the artifact on disk was made with (which `force` ignores), the defaults. Without any,
the policy's widths are 32, or the widest native width where that is larger, so that no dim is cut
and no mixture is refused for a width that nobody chose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from opentau_prep.errors import PrepError
from opentau_prep.heads.compute import recorded_options
from opentau_prep.heads.options import HeadOptions
from opentau_prep.stats.options import StatsOptions
from opentau_prep.tokenizer.folder import recorded_fit
from opentau_prep.tokenizer.options import DEFAULT_CHUNK_SIZE, FitOptions

if TYPE_CHECKING:
    from pathlib import Path

    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedMixture

__all__ = ["Choices", "native_widths"]

Given = Mapping[str, Any]
"""Options by name as a person gave them; one that is absent or None was not given."""

_WIDTH = 32
_OF_DATASET_STATS = ("quantiles", "episode_stats", "episode_quantiles")


@dataclass(frozen=True)
class Choices:
    """The options of every step on one mixture.

    Attributes:
        resolved: The mixture.
        context: How to run; with `force` nothing is remembered.
        given: Options that were given on the command line or by the caller.
        norm_heads: The mixture's file of heads; None for its default place.
        tokenizer: The tokenizer's folder; None for its default place.
    """

    resolved: ResolvedMixture
    context: RunContext
    given: Given
    norm_heads: Path | None = None
    tokenizer: Path | None = None

    @property
    def heads_path(self) -> Path:
        """The mixture's file of heads."""
        default = self.context.prep_path(self.resolved.mixture, "norm_heads")
        return self.norm_heads or default

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer's folder."""
        return self.tokenizer or self.context.prep_path(self.resolved.mixture, "tokenizer")

    @property
    def stats(self) -> StatsOptions:
        """Return the options of `stats`."""
        return StatsOptions(**_layered(StatsOptions, [self.given]))

    @property
    def keeps_stats_options(self) -> bool:
        """Whether each dataset keeps the quantiles that its stats were made with."""
        return all(self.given.get(name) in (None, ()) for name in _OF_DATASET_STATS)

    def heads(self) -> HeadOptions:
        """Return the options of `heads`.

        Raises:
            ConfigError: An option is out of range, or the heads' place is a folder.
        """
        recorded = None if self.context.force else _recorded_heads(self.heads_path)
        training = self.resolved.mixture.training
        # Native widths cost a look at every dataset: only where nobody has named them.
        given = {**self.given, "quantiles": self.given.get("quantiles_from")}
        layers: list[Given] = [given, training, _as_given(recorded)]
        if not all(_named(layers, name) for name in ("max_state_dim", "max_action_dim")):
            state, action = native_widths(self.resolved)
            widths = {"max_state_dim": max(_WIDTH, state), "max_action_dim": max(_WIDTH, action)}
            layers.append(widths)
        return HeadOptions(**_layered(HeadOptions, layers))

    def fit(self) -> FitOptions:
        """Return the options of `fit-tokenizer`; its width is that of the heads' actions.

        Raises:
            ConfigError: An option is out of range.
        """
        recorded = None if self.context.force else recorded_fit(self.tokenizer_path)
        training = self.resolved.mixture.training
        # The config's seed is of the training run: the draw of chunks has one of its own.
        sizes = {"chunk_size": training["chunk_size"]} if "chunk_size" in training else {}
        width: Given = {}
        if self.given.get("action_dim") is None:
            width = {"action_dim": self.heads().max_action_dim}
        layers = [self.given, sizes, width, _as_given(recorded)]
        layers.append({"chunk_size": DEFAULT_CHUNK_SIZE})
        return FitOptions(**_layered(FitOptions, layers))

    def training_must_hold(self) -> dict[str, int]:
        """Return what the training config must hold to normalize as the heads on disk do."""
        heads, fit = self.heads(), self.fit()
        return {
            "max_state_dim": heads.max_state_dim,
            "max_action_dim": heads.max_action_dim,
            "num_cams": heads.num_cams,
            "action_chunk": fit.chunk_size,
        }


def native_widths(resolved: ResolvedMixture) -> tuple[int, int]:
    """Return the widest state and actions of a mixture, after column selection, before padding.

    Datasets that do not say theirs are passed over: whoever reads their stats names them.
    """
    widest = {"state": 0, "actions": 0}
    for entry in resolved.entries:
        chosen = {"state": entry.config.state_index, "actions": entry.config.action_index}
        try:
            columns, features = entry.name_map.columns, entry.meta.features
        except PrepError:
            continue
        for name, index in chosen.items():
            feature = features.get(columns.get(name, ""))
            declared = feature.shape[-1] if feature is not None and feature.shape else 0
            widest[name] = max(widest[name], declared if index is None else len(index))
    return widest["state"], widest["actions"]


def _recorded_heads(path: Path) -> HeadOptions | None:
    try:
        return recorded_options(path)
    except PrepError:  # a file that cannot be read is reported by whoever reads it
        return None


def _as_given(options: object) -> Given:
    return {} if options is None else dict(vars(options))


def _named(layers: Sequence[Given], name: str) -> bool:
    return any(layer.get(name) is not None for layer in layers)


def _layered(options: type, layers: Sequence[Given]) -> dict[str, Any]:
    """Return for each field of a class the value of the first layer that has one."""
    found = {}
    for field in fields(options):
        values = (layer.get(field.name) for layer in layers)
        value = next((value for value in values if value is not None), None)
        if value is not None:
            found[field.name] = value
    return found
