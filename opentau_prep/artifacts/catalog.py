"""Every file that this toolkit may write: into a dataset's `meta/`, and for a mixture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Literal

from opentau_prep.errors import ConfigError

__all__ = ["CATALOG", "MIXTURE_OUTPUTS", "PROVENANCE_DIR", "ArtifactSpec"]

PROVENANCE_DIR = "meta/prep"

_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class ArtifactSpec:
    """One kind of artifact.

    Attributes:
        name: What it is called in the toolkit, in messages and in provenance.
        template: Its path relative to the dataset root; `{fields}` are filled in when it is placed.
        command: The command that owns it.
        schema_version: The version of its layout; a file of another version is stale.
        readers: `"own"` for a format of this toolkit, `"others"` for one that other tools read too.
    """

    name: str
    template: str
    command: str
    schema_version: int
    readers: Literal["own", "others"]

    def path(self, **fields: str) -> PurePosixPath:
        """Return the path relative to the dataset root.

        Raises:
            ConfigError: A field is empty, absolute, or would leave its folder.
        """
        for field in _FIELD.findall(self.template):
            _check_field(self.name, field, fields[field])
        return PurePosixPath(self.template.format_map(fields))

    def provenance_path(self, **fields: str) -> PurePosixPath:
        """Return the path of its provenance, relative to the dataset root."""
        below_meta = self.path(**fields).relative_to("meta").with_suffix("")
        return PurePosixPath(PROVENANCE_DIR, f"{below_meta}.json")


def _check_field(artifact: str, field: str, value: str) -> None:
    bad = any(part in ("", ".", "..") for part in value.split("/"))
    if bad or any(ord(c) < 32 or c in "\\\x7f" for c in value):
        raise ConfigError(
            f"{value!r} cannot be part of a file's path", where=f"artifact {artifact}, {field}"
        )


_SPECS = (
    ArtifactSpec("stats", "meta/stats.json", "stats", 1, "others"),
    ArtifactSpec("episodes_stats", "meta/episodes_stats.jsonl", "stats", 1, "others"),
    # One file of the v3.0 episodes table, e.g. file="chunk-000/file-000".
    ArtifactSpec("episodes", "meta/episodes/{file}.parquet", "stats", 1, "others"),
    ArtifactSpec("quantile_sketch", "meta/quantile_sketch.json", "stats", 2, "own"),
    # One recipe of delta actions and chunk size, e.g. recipe="0a1b2c3d4e5f-chunk50".
    ArtifactSpec("delta_stats", "meta/delta_stats/{recipe}.json", "stats", 3, "own"),
    ArtifactSpec("relative_stats", "meta/relative_stats.json", "stats", 1, "others"),
    ArtifactSpec("norm_stats", "meta/norm_stats.json", "stats", 1, "others"),
    ArtifactSpec("norm_head", "meta/norm_heads/{mixture_id}.json", "heads", 1, "own"),
    ArtifactSpec(
        "speed_percentiles", "meta/speed_percentiles.jsonl", "speed-percentiles", 1, "others"
    ),
    ArtifactSpec(
        "action_tokens", "meta/action_tokens/{mixture_id}.json", "fit-tokenizer", 1, "own"
    ),
    ArtifactSpec("validation", "meta/validation.json", "validate", 1, "own"),
)

CATALOG = MappingProxyType({spec.name: spec for spec in _SPECS})

MIXTURE_OUTPUTS = MappingProxyType(
    {
        "norm_heads": "norm_heads.json",
        "tokenizer": "tokenizer",
        "val_plan": "val_plan.json",
        "val_report": "val_report.json",
        "validation": "validation.json",
        "forecast": "forecast.json",
        "report": "report.html",
    }
)
"""What is made for a mixture as a whole: artifact -> its file or folder in `<stem>.prep/`."""
