"""What a project sets once: settings in TOML, and a baseline of findings that it accepts."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from opentau_prep.artifacts.atomic import write_atomic
from opentau_prep.artifacts.jsonio import dump_own, load_own
from opentau_prep.config.faults import nearest, shown
from opentau_prep.errors import ConfigError, MetadataError
from opentau_prep.validate.catalogue import pick_rules
from opentau_prep.validate.findings import Finding, ValidateReport

__all__ = ["Settings", "load_settings", "read_baseline", "write_baseline"]

_OWN = "opentau-prep.toml"
_PROJECT = "pyproject.toml"
_BASELINE_VERSION = 1


@dataclass(frozen=True)
class Settings:
    """What a project sets once.

    Attributes:
        select: Rules that count, by prefix; none for all.
        ignore: Rules that do not.
        per_dataset_ignores: Pattern of dataset names (`demo/*`) -> rules that do not count there.
        strict: Whether warnings count.
        deep: Whether frames are read.
        baseline: The baseline file, relative to the file that sets it.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    per_dataset_ignores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    strict: bool = False
    deep: bool = False
    baseline: Path | None = None

    def ignores(self, finding: Finding) -> bool:
        """Return whether a finding does not count in its dataset."""
        return any(
            fnmatch.fnmatchcase(finding.dataset, pattern)
            and finding.code in {rule.code for rule in pick_rules(codes)}
            for pattern, codes in self.per_dataset_ignores.items()
        )


def load_settings(folder: Path) -> Settings:
    """Return the settings that hold in a folder: its own, or the nearest parent's.

    In a folder, `[validate]` of `opentau-prep.toml` goes before `[tool.opentau-prep.validate]` of
    `pyproject.toml`.

    Raises:
        ConfigError: A file is not TOML, or has a key that is unknown or of the wrong type.
    """
    folder = folder.resolve()
    for place in (folder, *folder.parents):
        for name, path in ((_OWN, ("validate",)), (_PROJECT, ("tool", "opentau-prep", "validate"))):
            table = _table(place / name, path)
            if table is not None:
                return _parse(table, place / name)
    return Settings()


def _table(file: Path, path: Sequence[str]) -> Mapping[str, Any] | None:
    if not file.exists():
        return None
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        value: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not valid TOML ({error})", where=str(file)) from error
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=str(file)) from error
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None or isinstance(value, Mapping):
        return value
    raise ConfigError(f"`{'.'.join(path)}` must be a table", where=str(file))


def _parse(table: Mapping[str, Any], file: Path) -> Settings:
    known = {each.name.replace("_", "-"): each.name for each in fields(Settings)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            near = nearest(key, known)
            tip = f"Did you mean `{near}`?" if near else f"Known: {', '.join(known)}."
            raise ConfigError(f"unknown key `{key}`", where=str(file), hint=tip)
        values[known[key]] = _value(known[key], value, file)
    pick_rules(values.get("select", ()), values.get("ignore", ()))
    for codes in values.get("per_dataset_ignores", {}).values():
        pick_rules(codes)
    return Settings(**values)


def _value(name: str, value: Any, file: Path) -> Any:
    if name in ("strict", "deep") and isinstance(value, bool):
        return value
    if name in ("select", "ignore") and _is_strings(value):
        return tuple(value)
    if name == "baseline" and isinstance(value, str):
        return file.parent / value
    tables = name == "per_dataset_ignores" and isinstance(value, Mapping)
    if tables and all(_is_strings(codes) for codes in value.values()):
        return {str(pattern): tuple(codes) for pattern, codes in value.items()}
    raise ConfigError(
        f"`{name.replace('_', '-')}` has the wrong type: {shown(value)}", where=str(file)
    )


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def read_baseline(file: Path) -> frozenset[str]:
    """Return the fingerprints of the accepted findings.

    Raises:
        ConfigError: The file is missing, or no baseline.
    """
    hint = "Write one: `validate --baseline FILE --write-baseline`."
    try:
        value = load_own(file.read_bytes(), where=str(file))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"cannot be read ({reason})", where=str(file), hint=hint) from error
    except MetadataError as error:
        raise ConfigError("is not a baseline", where=str(file), hint=hint) from error
    rows = value.get("findings") if isinstance(value, dict) else None
    if not isinstance(rows, list) or value.get("version") != _BASELINE_VERSION:
        raise ConfigError("is not a baseline", where=str(file), hint=hint)
    return frozenset(str(row.get("fingerprint")) for row in rows if isinstance(row, dict))


def write_baseline(file: Path, report: ValidateReport) -> None:
    """Write all findings of a report as accepted; the file is meant to be read and kept in git.

    Raises:
        ArtifactError: The file cannot be written.
    """
    rows = [
        {
            "fingerprint": finding.fingerprint,
            "code": finding.code,
            "dataset": finding.dataset,
            "place": str(finding.place),
            "message": finding.message,
        }
        for finding in report.findings
    ]
    write_atomic(file, dump_own({"version": _BASELINE_VERSION, "findings": rows}))
