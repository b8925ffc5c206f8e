"""What is left of a faulty mixture: for those who want to tell its faults and look further."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from opentau_prep.config.load import load_mixture
from opentau_prep.config.refs import Origin, load_document
from opentau_prep.config.schema import DatasetEntry, Mixture, MixtureSource
from opentau_prep.errors import ConfigError

__all__ = ["Salvage", "salvage_mixture"]

_KEY = "dataset_mixture"
_KEPT = ("tolerance_s", "skip_timestamp_check", "action_freq")


@dataclass(frozen=True)
class Salvage:
    """A mixture, and what is wrong with its file.

    Attributes:
        mixture: The whole mixture when nothing is wrong; else one of the entries that are sound,
            without weights; None when there is none.
        path: The file; None for a mixture of dataset roots.
        positions: Where each of its entries is in the file, when some were left out.
        faults: (JSON path, message) of each fault.
    """

    mixture: Mixture | None
    path: Path | None
    positions: tuple[int, ...] = ()
    faults: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, mixture: Mixture) -> Salvage:
        """Return a mixture in which nothing is wrong."""
        return cls(mixture, mixture.path)

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return "the datasets together" if self.path is None else self.path.name


def salvage_mixture(path: str | os.PathLike[str]) -> Salvage:
    """Load a mixture, or as much of it as can be used.

    Raises:
        ConfigError: The file cannot be read, or is no mixture at all.
    """
    try:
        mixture = load_mixture(path)
    except ConfigError as error:
        return _rescue(Path(path), error)
    return Salvage.of(mixture)


def _rescue(path: Path, error: ConfigError) -> Salvage:
    document = load_document(path, only=_KEY)  # raises what no mixture can be found behind
    value, origin = document.value, document.origin
    if isinstance(value, dict) and _KEY in value:
        value, origin = value[_KEY], origin.child(_KEY)
    raw = value.get("datasets") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(raw, list):
        raise error
    good = [i for i, entry in enumerate(raw) if _is_valid(entry)]
    entries = {"datasets": [raw[i] for i in good]}
    origins: dict[str | int, Origin] = {
        new: origin.at(("datasets", old)) for new, old in enumerate(good)
    }
    source = MixtureSource(path=path, files=document.files, mixture_id=path.stem)
    where = Origin(origin.file, {"datasets": Origin(origin.file, origins)})
    settings = {name: value[name] for name in _KEPT if name in value}
    for candidate in ({**entries, **settings}, entries):
        try:
            mixture = Mixture.parse(candidate).bind(where, (), source)
        except ConfigError:
            continue
        return Salvage(mixture, path, tuple(good), _faults(error))
    return Salvage(None, path, faults=_faults(error))


def _is_valid(entry: object) -> bool:
    try:
        DatasetEntry.parse(entry)
    except ConfigError:
        return False
    return True


def _faults(error: ConfigError) -> tuple[tuple[str, str], ...]:
    """Take the one error apart: several faults are one per line, as `file: path: message`."""
    head, *lines = error.message.split("\n")
    if not lines:
        return ((_json_path(error.where or ""), head),)
    parts = [line.split(": ", 2) for line in lines]
    return tuple((part[1], part[2]) if len(part) == 3 else ("", ": ".join(part)) for part in parts)


def _json_path(where: str) -> str:
    return where.rpartition(": ")[2] if ": " in where else ""
