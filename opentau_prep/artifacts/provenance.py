"""What an artifact was made from, written next to it: staleness is reported from content alone.

A record holds no time, host or absolute path: the same inputs give the same bytes on every machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import opentau_prep
from opentau_prep.artifacts.jsonio import dump_own, load_own
from opentau_prep.errors import MetadataError

__all__ = [
    "Provenance",
    "Recipe",
    "changes_in_common",
    "describe_changes",
    "record_of",
    "same_json",
    "sha256_of",
]


@dataclass(frozen=True)
class Recipe:
    """What an artifact is made of, and by which command: all that decides its content.

    Attributes:
        command: The command that makes it.
        inputs: A fingerprint of what is read, JSON-ready, such as
            `{"episodes": {"count": 19, "frames": 4958, "sha256": ...}}`.
        parameters: Everything the caller chose that changes the content, JSON-ready.
        partial: Whether `inputs` may lack hashes of what was not read. Such a recipe is for looking
            only: an artifact is compared with what both know, and none is written from it.
        mixture_id: The mixture whose output it is; empty for what belongs to a dataset.
    """

    command: str
    inputs: Mapping[str, Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    partial: bool = False
    mixture_id: str = ""

    def changes_since(self, provenance: Provenance) -> list[str]:
        """Return in words how the inputs differ from those that an artifact was made of."""
        compare = changes_in_common if self.partial else describe_changes
        return compare(provenance.inputs, self.inputs)


@dataclass(frozen=True)
class Provenance:
    """The origin of one artifact.

    Attributes:
        artifact: The artifact's name, unique within its dataset, such as
            `"norm_heads/mix-0a1b2c3d4e5f"`.
        schema_version: The version of the artifact's layout.
        tool: `"opentau-prep"`.
        tool_version: The version that wrote it.
        command: The command that wrote it.
        parameters: Everything the caller chose that changes the content, JSON-ready.
        sha256: The hash of the artifact's bytes.
        inputs: A fingerprint of what was read, such as `{"episodes": {"count", "frames",
            "sha256"}}`.
        mixture_id: The mixture whose output it is; empty for what belongs to a dataset.
    """

    artifact: str
    schema_version: int
    tool: str
    tool_version: str
    command: str
    parameters: Mapping[str, Any]
    sha256: str
    inputs: Mapping[str, Any]
    mixture_id: str = ""

    @property
    def mixture(self) -> str:
        """The name of that mixture without the hash of what it holds: it may have been edited."""
        return _mixture_of(self.mixture_id)

    def is_of_another(self, recipe: Recipe) -> bool:
        """Whether this is the output of another mixture than that of a recipe."""
        known = bool(self.mixture_id and recipe.mixture_id)
        return known and self.mixture != _mixture_of(recipe.mixture_id)

    def to_bytes(self) -> bytes:
        """Return the file's content, its nested keys sorted however the caller built them."""
        record = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        record["parameters"] = _sorted_json(self.parameters)
        record["inputs"] = _sorted_json(self.inputs)
        if not self.mixture_id:
            del record["mixture_id"]
        return dump_own(record)

    @classmethod
    def from_bytes(cls, data: bytes) -> Provenance | None:
        """Return the record, or None for what this tool did not write: torn, foreign, malformed."""
        try:
            record = load_own(data, where="provenance")
        except MetadataError:
            return None
        if not isinstance(record, dict) or record.get("tool") != "opentau-prep":
            return None
        values: dict[str, Any] = {
            each.name: record.get(each.name) for each in dataclasses.fields(cls)
        }
        values["mixture_id"] = values["mixture_id"] or ""
        texts = ("artifact", "tool_version", "command", "sha256", "mixture_id")
        fits = (
            all(isinstance(values[name], str) for name in texts)
            and type(values["schema_version"]) is int
            and isinstance(values["parameters"], dict)
            and isinstance(values["inputs"], dict)
        )
        return cls(**values) if fits else None


def record_of(artifact: str, schema_version: int, content: bytes, recipe: Recipe) -> Provenance:
    """Return the provenance of an artifact's bytes, as this version of the tool writes it."""
    return Provenance(
        artifact=artifact,
        schema_version=schema_version,
        tool="opentau-prep",
        tool_version=opentau_prep.__version__,
        command=recipe.command,
        parameters=recipe.parameters,
        sha256=sha256_of(content),
        inputs=recipe.inputs,
        mixture_id=recipe.mixture_id,
    )


def _mixture_of(mixture_id: str) -> str:
    stem, _, digits = mixture_id.rpartition("-")
    # Mixtures of plain roots have no file: each is another one.
    return mixture_id if stem == "roots" or not digits else stem


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of some bytes in hex."""
    return hashlib.sha256(data).hexdigest()


def same_json(a: Any, b: Any) -> bool:
    """Return whether two values are written alike but for the order of keys (NaN equals NaN)."""
    with contextlib.suppress(TypeError, ValueError):  # arrays, or keys that cannot be sorted
        # Nearly always they are the same, and then this finds out in a tenth of the time.
        if json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True):
            return True
    return dump_own(_sorted_json(a)) == dump_own(_sorted_json(b))


def describe_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return in words what differs between two fingerprints of inputs.

    Counts are given as they were and are (`"episodes 19 -> 105"`, `"frames 4,958 -> 27,623"`),
    other content by its name (`"tasks changed"`, `"data changed (2 of 19 files)"`).
    """
    words: list[str] = []
    for name in [*new, *(name for name in old if name not in new)]:
        if name not in old:
            words.append(f"{name} added")
        elif name not in new:
            words.append(f"{name} removed")
        elif not same_json(old[name], new[name]):
            words.extend(_describe_one(name, old[name], new[name]))
    return words


def changes_in_common(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return in words what differs, of what both name and of that only what both know.

    For fingerprints that were made without reading everything: sizes are compared where there are
    no hashes.
    """
    before: dict[str, Any] = {}
    now: dict[str, Any] = {}
    for name in new:
        if name not in old:
            continue
        a, b = old[name], new[name]
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            shared = sorted(a.keys() & b.keys())
            a, b = {k: a[k] for k in shared}, {k: b[k] for k in shared}
        before[name], now[name] = a, b
    return describe_changes(before, now)


def _describe_one(name: str, old: Any, new: Any) -> list[str]:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return [_shortly(name, old, new)]
    words = [
        f"{_count_label(name, field)} {old[field]:,} -> {count:,}"
        for field, count in new.items()
        if field != "bytes"
        and _is_count(count)
        and _is_count(old.get(field))
        and count != old[field]
    ]
    changed, total = _changed_files(old.get("each"), new.get("each"))
    if changed:
        words.append(f"{name} changed ({changed} of {total} files)")
    return words or [f"{name} changed"]


def _count_label(name: str, field: str) -> str:
    if field == "count":
        return name
    return f"{name} files" if field == "files" else field


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _changed_files(old: Any, new: Any) -> tuple[int, int]:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return 0, 0
    return sum(name in old and old[name] != digest for name, digest in new.items()), len(new)


def _shortly(name: str, old: Any, new: Any) -> str:
    texts = [json.dumps(_sorted_json(value), ensure_ascii=False) for value in (old, new)]
    if max(len(text) for text in texts) > 60:
        return f"{name} changed"
    return f"{name} {texts[0]} -> {texts[1]}"


def _sorted_json(value: Any) -> Any:
    """Return the value as it reads back from a file, with its keys sorted."""
    return _by_key(load_own(dump_own(value), where="value"))


def _by_key(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _by_key(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_by_key(item) for item in value]
    return value
