"""Two tokenizers: settings, vocabulary, what they were fitted on, and how long sequences are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from opentau_prep.artifacts.jsonio import load_own
from opentau_prep.diff.stats import Moved, diff_sources
from opentau_prep.errors import MetadataError
from opentau_prep.forecast.sets import StatSet, StatsSource
from opentau_prep.forecast.sources import feature_stats
from opentau_prep.metadata.jsonread import read_json_object
from opentau_prep.storage import open_storage

__all__ = ["diff_tokenizers"]

_SETTINGS = (
    "chunk_size", "action_dim", "scale", "vocab_size", "config_version", "normalization", "seed",
    "holdout", "mixture_id", "action_freq", "total_chunks_actual",
)  # fmt: skip
_PROCESSOR = ("scale", "vocab_size", "min_token", "action_dim", "time_horizon")


def diff_tokenizers(a: Path, b: Path, notes: list[str]) -> list[Moved]:
    """Return what moved; without a report of a fit, vocabularies and processors only."""
    moved = [*_processor(a, b), *_vocabulary(a, b)]
    reports = [_report(each) for each in (a, b)]
    if not all(reports):
        lacking = [str(f) for f, report in zip((a, b), reports, strict=True) if not report]
        notes.append(f"no fit_report.json in {', '.join(lacking)}: fits were not compared")
        return moved
    moved += _settings(*reports)
    moved += _ranges(reports, (a, b), notes)
    moved += _lengths(*reports)
    return moved


def _report(folder: Path) -> dict[str, Any]:
    path = folder / "fit_report.json"
    if not path.is_file():
        return {}
    document = load_own(path.read_bytes(), where=str(path))
    return document if isinstance(document, dict) else {}


def _processor(a: Path, b: Path) -> Iterator[Moved]:
    before, after = (_json(folder, "processor_config.json") for folder in (a, b))
    for name in _PROCESSOR:
        if before.get(name) != after.get(name):
            yield Moved("processor", name, _shown(before.get(name)), _shown(after.get(name)))


def _vocabulary(a: Path, b: Path) -> Iterator[Moved]:
    before, after = (_json(folder, "tokenizer.json").get("model") or {} for folder in (a, b))
    if before == after:
        return
    one, other = (set(model.get("vocab") or ()) for model in (before, after))
    shared = len(one & other)
    merges = before.get("merges") == after.get("merges")
    yield Moved(
        "vocabulary",
        "tokens" + (", same merges" if merges else ""),
        f"{len(one):,}",
        f"{len(other):,}, {shared:,} of them shared",
    )


def _settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Moved]:
    for name in _SETTINGS:
        if a.get(name) != b.get(name):
            yield Moved("fit", name, _shown(a.get(name)), _shown(b.get(name)))


def _ranges(
    reports: list[dict[str, Any]], folders: tuple[Path, Path], notes: list[str]
) -> list[Moved]:
    """Return how the ranges moved that the fits normalized actions with."""
    sources = []
    for report, folder in zip(reports, folders, strict=True):
        heads = report.get("per_head_action_stats") or {}
        sets = [
            StatSet(str(key), {"actions": feature_stats(entry, f"{folder}, {key}")})
            for key, entry in heads.items()
        ]
        sources.append(StatsSource("tokenizer", str(folder), "opentau", sets))
    return diff_sources(sources[0], sources[1], notes)


def _lengths(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Moved]:
    one, other = (each.get("token_lengths") or {} for each in (a, b))
    pairs = [("all chunks", one.get("total"), other.get("total"))]
    heads = [each.get("heads") or {} for each in (one, other)]
    pairs += [(f"head {name}", heads[0][name], heads[1].get(name)) for name in heads[0]]
    for name, before, after in pairs:
        shown = [_length(each) for each in (before, after)]
        if shown[0] != shown[1]:
            yield Moved(name, "tokens per chunk", shown[0], shown[1])


def _length(group: Mapping[str, Any] | None) -> str:
    if not isinstance(group, Mapping):
        return ""
    mean, p99 = float(group.get("mean", np.nan)), float(group.get("p99", np.nan))
    return f"mean {mean:.1f}, 99 % {p99:.0f}"


def _json(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / name).is_file():
        raise MetadataError(f"has no {name}", where=str(folder))
    return read_json_object(open_storage(folder), name)


def _shown(value: object) -> str:
    return "" if value is None else str(value)
