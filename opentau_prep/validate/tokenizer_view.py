"""A tokenizer folder as the rules see it: its files parsed, faults kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentau_prep.artifacts.jsonio import load_own
from opentau_prep.errors import PrepError
from opentau_prep.tokenizer.folder import ProcessorSettings, load_tokenizer, read_settings

__all__ = ["NORM", "PROCESSOR", "REPORT", "TOKENIZER", "TokenizerFolder", "read_folder"]

PROCESSOR = "processor_config.json"
NORM = "opentau_action_norm.json"
REPORT = "fit_report.json"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class TokenizerFolder:
    """What a tokenizer folder holds.

    Attributes:
        path: The folder.
        settings: Of the processor; None when they cannot be read.
        norm: `opentau_action_norm.json`; None when it is missing or malformed.
        report: `fit_report.json`, likewise.
        faults: (file, why) of what cannot be read.
    """

    path: Path
    settings: ProcessorSettings | None
    norm: Mapping[str, Any] | None
    report: Mapping[str, Any] | None
    faults: tuple[tuple[str, str], ...]


def read_folder(path: Path) -> TokenizerFolder:
    """Return a folder's content; whatever is wrong with one file leaves the others readable."""
    faults: list[tuple[str, str]] = []
    contents = {name: _content(path / name, name, faults) for name in (PROCESSOR, TOKENIZER)}
    settings = None
    if (processor := contents[PROCESSOR]) is not None:
        try:
            settings = read_settings(processor)
        except PrepError as fault:
            faults.append((PROCESSOR, fault.message))
    if (tokenizer := contents[TOKENIZER]) is not None:
        try:
            load_tokenizer(tokenizer)
        except PrepError as fault:
            faults.append((TOKENIZER, fault.message))
    norm, report = (_document(path, name, faults) for name in (NORM, REPORT))
    return TokenizerFolder(path, settings, norm, report, tuple(faults))


def _content(file: Path, name: str, faults: list[tuple[str, str]]) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        faults.append((name, "file is missing"))
    except OSError as error:
        faults.append((name, f"cannot be read ({(error.strerror or str(error)).lower()})"))
    return None


def _document(path: Path, name: str, faults: list[tuple[str, str]]) -> Mapping[str, Any] | None:
    content = _content(path / name, name, faults)
    if content is None:
        return None
    try:
        value = load_own(content, where=name)
    except PrepError as fault:
        faults.append((name, fault.message))
        return None
    if isinstance(value, dict):
        return value
    faults.append((name, "is not a JSON object"))
    return None
