"""A baseline: findings that are known and accepted, so that only new ones count."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from opentau_prep.artifacts.atomic import write_atomic
from opentau_prep.artifacts.jsonio import dump_own, load_own
from opentau_prep.errors import ConfigError, MetadataError

if TYPE_CHECKING:
    from opentau_prep.validate.report import ValidateReport

__all__ = ["read_baseline", "write_baseline"]

_VERSION = 1


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
    if not isinstance(rows, list) or value.get("version") != _VERSION:
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
    write_atomic(file, dump_own({"version": _VERSION, "findings": rows}))
