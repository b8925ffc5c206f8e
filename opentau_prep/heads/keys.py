"""Which norm head a dataset belongs to."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentau_prep.errors import ConfigError, MetadataError
from opentau_prep.notices import shorten_names, warn
from opentau_prep.text import several

__all__ = [
    "KeyGroups",
    "check_required_tags",
    "compute_norm_key",
    "group_by_key",
    "is_missing_tag",
]

_TAGS = ("robot_type", "control_mode")


@dataclass(frozen=True)
class KeyGroups:
    """The norm keys of a mixture and who belongs to each.

    Attributes:
        members: Key -> names of its datasets; keys and names in order of first appearance.
        fallbacks: The datasets that got a head of their own for lack of a tag, in mixture order.
    """

    members: dict[str, tuple[str, ...]]
    fallbacks: tuple[str, ...]


def compute_norm_key(
    robot_type: str | None, control_mode: str | None, fallback_name: str
) -> tuple[str, bool]:
    """Return a dataset's norm key, and whether it had to fall back to the dataset's own name.

    The key is `"<robot_type>::<control_mode>"`, both stripped, casing kept. When either is missing
    (None, blank, or "unknown" in any casing) it is `fallback_name`.

    Args:
        robot_type: After the mixture entry's override.
        control_mode: After the mixture entry's override.
        fallback_name: The dataset's mixture-level name.

    Raises:
        MetadataError: A tag is neither a string nor None.

    Example:
        >>> compute_norm_key(" franka ", "joint", "org/pick")
        ('franka::joint', False)
        >>> compute_norm_key("franka", "Unknown", "org/pick")
        ('org/pick', True)
    """
    key = _key_of(
        _tag_text("robot_type", robot_type, fallback_name),
        _tag_text("control_mode", control_mode, fallback_name),
    )
    return (fallback_name, True) if key is None else (key, False)


@functools.lru_cache(maxsize=1024)  # a few pairs of tags for all the datasets there are
def _key_of(robot: str, mode: str) -> str | None:
    return None if is_missing_tag(robot) or is_missing_tag(mode) else f"{robot}::{mode}"


def group_by_key(
    dataset_names: Sequence[str], infos: Sequence[Mapping[str, Any] | None]
) -> KeyGroups:
    """Return the norm keys of a mixture, reporting fallbacks once.

    Notices: `fallback_heads`; `ambiguous_norm_key` when different pairs of tags spell one key (such
    as "a::b" + "c" and "a" + "b::c"), which training pools.

    Args:
        dataset_names: Mixture-level names, in mixture order.
        infos: Each dataset's info.json after overrides, parallel to the names.

    Raises:
        ConfigError: Two datasets have the same name, or a dataset without tags is named like the
            key of another dataset's tags: training would pool them by accident.
        MetadataError: A tag is neither a string nor None.
    """
    _check_unique(dataset_names)
    tags = [_tags(info) for info in infos]
    keys = [compute_norm_key(*t, name) for t, name in zip(tags, dataset_names, strict=True)]
    fallbacks = tuple(n for n, (_, is_own) in zip(dataset_names, keys, strict=True) if is_own)
    spellings: dict[str, dict[tuple[str, ...], str]] = {}
    seen: set[tuple[Any, Any]] = set()
    for (key, is_own), pair, name in zip(keys, tags, dataset_names, strict=True):
        if not is_own and pair not in seen:
            seen.add(pair)
            spelling = tuple(str(tag).strip() for tag in pair)
            spellings.setdefault(key, {}).setdefault(spelling, name)
    _check_no_fallback_is_a_key(fallbacks, spellings)
    _warn_ambiguous(spellings)
    _warn_fallbacks(fallbacks)
    members: dict[str, list[str]] = {}
    for (key, _), name in zip(keys, dataset_names, strict=True):
        members.setdefault(key, []).append(name)
    return KeyGroups({key: tuple(names) for key, names in members.items()}, fallbacks)


def check_required_tags(
    dataset_names: Sequence[str],
    infos: Sequence[Mapping[str, Any] | None],
    *,
    require_non_empty_robot_type: bool = False,
    require_non_empty_control_mode: bool = False,
) -> None:
    """Raise unless every dataset has the tags that the mixture requires, after overrides.

    Empty is None or blank, as in training; "unknown" is a value (and still a fallback head).

    Args:
        dataset_names: Mixture-level names.
        infos: Each dataset's info.json after overrides, parallel to the names.
        require_non_empty_robot_type: The mixture's field of that name.
        require_non_empty_control_mode: The mixture's field of that name.

    Raises:
        ConfigError: Some tag is empty; the message lists every dataset.
    """
    required = dict(
        zip(_TAGS, (require_non_empty_robot_type, require_non_empty_control_mode), strict=True)
    )
    offenders = []
    if not any(required.values()):
        return
    for name, info in zip(dataset_names, infos, strict=True):
        tags = dict(zip(_TAGS, _tags(info), strict=True))
        empty = [t for t in _TAGS if required[t] and not _tag_text(t, tags[t], name)]
        if empty:
            offenders.append(f"{name} ({', '.join(empty)})")
    if offenders:
        flags = " and ".join(f"require_non_empty_{tag}" for tag in _TAGS if required[tag])
        raise ConfigError(
            f"{flags} is set, but these datasets have empty values: {'; '.join(offenders)}",
            hint="Set robot_type and control_mode in the mixture's dataset entries.",
        )


def _tags(info: Mapping[str, Any] | None) -> tuple[Any, Any]:
    known = info or {}
    return known.get("robot_type"), known.get("control_mode")


def _tag_text(tag: str, value: Any, dataset: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MetadataError(
            f"{tag} must be a string or null, not {value!r}",
            where=dataset,
            hint=f"Fix meta/info.json, or set {tag} in the mixture's dataset entry.",
        )
    return value.strip()


def is_missing_tag(text: str) -> bool:
    """Return whether a stripped robot type or control mode says nothing: blank, or "unknown"."""
    return not text or text.lower() == "unknown"


def _check_unique(names: Sequence[str]) -> None:
    repeated = [name for name, n in Counter(names).items() if n > 1]
    if repeated:
        shown, suffix = shorten_names(map(repr, repeated))
        raise ConfigError(
            f"dataset names must be unique, but {', '.join(shown)}{suffix} occur more than once",
            hint="Names that collide after '#N' was appended need another repo_id or root.",
        )


def _check_no_fallback_is_a_key(
    fallbacks: Sequence[str], spellings: Mapping[str, Mapping[tuple[str, ...], str]]
) -> None:
    for name in fallbacks:
        if name in spellings:
            other = next(iter(spellings[name].values()))
            raise ConfigError(
                f"it has no robot_type or control_mode, so its head would be called {name!r}, "
                f"which is the norm key of {other}: the two would be pooled by accident",
                where=name,
                hint="Set robot_type and control_mode of one of them in the mixture.",
            )


def _warn_ambiguous(spellings: Mapping[str, Mapping[tuple[str, ...], str]]) -> None:
    for key, pairs in spellings.items():
        if len(pairs) > 1:
            parts = "; ".join(f"{name} has {pair!r}" for pair, name in pairs.items())
            warn(
                "ambiguous_norm_key",
                f"norm key {key!r} is that of different robot types and control modes, which "
                f"training pools into one head: {parts}",
                context=key,
                tags=[list(pair) for pair in pairs],
            )


def _warn_fallbacks(fallbacks: Sequence[str]) -> None:
    if not fallbacks:
        return
    shown, suffix = shorten_names(fallbacks)
    warn(
        "fallback_heads",
        f"{several(len(fallbacks), 'dataset')} without robot_type or control_mode: a fallback"
        f" each, a norm head of its own ({', '.join(shown)}{suffix})",
        n=len(fallbacks),
        shown=shown,
        suffix=suffix,
    )
