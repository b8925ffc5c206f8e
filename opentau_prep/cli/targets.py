"""From a command's arguments to the datasets it works on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from opentau_prep.errors import ConfigError

if TYPE_CHECKING:
    from opentau_prep.config.salvage import Salvage
    from opentau_prep.config.schema import Mixture
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedMixture

__all__ = ["load_targets", "named_mixture", "named_subject"]


def named_mixture(roots: list[str] | None, mixture_json: Path | None) -> Mixture:
    """Return the mixture of a JSON file, or one made of plain dataset roots.

    Raises:
        ConfigError: Neither or both were given, or the file is faulty.
    """
    from opentau_prep.config.load import load_mixture, mixture_from_roots

    if mixture_json is not None and roots:
        raise ConfigError("dataset roots and --mixture-json exclude each other")
    if mixture_json is not None:
        return load_mixture(mixture_json)
    if not roots:
        raise ConfigError(
            "no dataset given", hint="Name dataset folders, or a mixture with --mixture-json FILE."
        )
    return mixture_from_roots(roots)


def named_subject(roots: list[str] | None, mixture_json: Path | None) -> Salvage:
    """Return what `validate` checks: a mixture file, faults and all, or plain dataset roots.

    Raises:
        ConfigError: Neither or both were given, or the file is no mixture at all.
    """
    from opentau_prep.config.salvage import Salvage, salvage_mixture

    if mixture_json is None or roots:
        return Salvage.of(named_mixture(roots, mixture_json))
    return salvage_mixture(mixture_json)


def load_targets(
    roots: list[str] | None,
    mixture_json: Path | None,
    context: RunContext,
    *,
    frames: bool,
    one_by_one: bool = False,
    writes: bool = True,
) -> ResolvedMixture:
    """Return the datasets that were named, found and opened.

    Args:
        roots: Dataset folders.
        mixture_json: A mixture.
        context: Whether the hub may be asked.
        frames: Whether `data/` will be read.
        one_by_one: Whether each dataset is worked on by itself, so that `--keep-going` may leave
            out those that cannot be opened.
        writes: Whether artifacts of each dataset are read or written.

    Raises:
        ConfigError: The arguments or the mixture are faulty.
        MetadataError: Datasets cannot be found or opened.
        ArtifactError: A dataset lies in a store, and there is no `--artifact-root`.
    """
    from opentau_prep.artifacts.place import check_artifact_root
    from opentau_prep.metadata.locate import LocateOptions
    from opentau_prep.metadata.resolve import resolve_mixture

    options = LocateOptions.of_run(context, frames=frames)
    keep_going = one_by_one and context.keep_going
    mixture = named_mixture(roots, mixture_json)
    if writes:
        check_artifact_root(mixture.roots, context.artifact_root)
    resolved = resolve_mixture(mixture, options, keep_going=keep_going)
    return resolved.part(context.shard)
