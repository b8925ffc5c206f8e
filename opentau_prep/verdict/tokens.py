"""The tokenizer's part of the report, from the report that its fit left in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from opentau_prep.errors import ArtifactError
from opentau_prep.tokenizer.report import with_forecast
from opentau_prep.validate.artifacts import why_torn
from opentau_prep.validate.tokenizer_view import (
    NORM,
    PROCESSOR,
    REPORT,
    TOKENIZER,
    read_folder,
)
from opentau_prep.verdict.details import TokenGroup, TokenizerFacts

__all__ = ["MAX_DATASETS", "check_folder", "tokenizer_facts"]

MAX_DATASETS = 20
_SETTINGS = (
    "chunk_size", "action_dim", "scale", "config_version", "normalization", "n_norm_heads",
    "vocab_size", "total_chunks_actual", "held_out_chunks", "seed", "holdout",
)  # fmt: skip
_STOPPED = {
    "converged": "more chunks do not shorten held-out sequences",
    "corpus": "no more chunks were asked for, or there are none",
    "memory": "more chunks do not fit into the memory budget",
}


def check_folder(folder: Path, *_: object, ours: bool) -> None:
    """Make sure that the files of a tokenizer's folder can be read as what they should be.

    Args:
        folder: The folder.
        ours: Whether it was written by this tool, and so holds a report, too.

    Raises:
        ArtifactError: They cannot.
    """
    needed = (PROCESSOR, TOKENIZER, *((NORM, REPORT) if ours else ()))
    faults = {name: why for name, why in read_folder(folder).faults if name in needed}
    for path in sorted(folder.glob("*.json")) if ours else ():
        if path.name not in faults and path.is_file() and (torn := _torn(path)):
            faults[path.name] = torn
    if faults:
        words = "; ".join(f"{name} {why}" for name, why in faults.items())
        raise ArtifactError(words, where=str(folder))


def _torn(path: Path) -> str:
    try:
        return why_torn(path.name, path.read_bytes())
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def tokenizer_facts(folder: Path, document: Mapping[str, Any], limit: int | None) -> TokenizerFacts:
    """Return what the report of a fit says.

    Args:
        folder: Where it lies.
        document: The report; a damaged one gives a fault, never an error.
        limit: The policy's `discrete_action_max_length`, for the forecast.
    """
    try:
        settings = {name: document[name] for name in _SETTINGS}
        fit = document.get("fit")
        if fit is None:
            words = "it holds the report of samples, no tokenizer (--skip-fit)"
            return TokenizerFacts(str(folder), settings, fault=words)
        settings["tokens"] = fit["tokens"]
        settings["longest_token_numbers"] = fit["max_token_length"]
        settings["vocabulary_used"] = float(fit["vocabulary"]["share"])
        settings["stopped"] = _STOPPED.get(fit["stopped_by"], str(fit["stopped_by"]))
        settings["roundtrip_mse"] = document["roundtrip"]["roundtrip_mse"]
        settings["inexact_chunks"] = document["roundtrip"].get("inexact_chunks")
        explained = document.get("explained", {})
        for name in ("half_scale", "half_rate"):
            if name in explained:
                settings[f"mean_tokens_at_{name}"] = float(explained[name]["mean"])
        lengths = with_forecast(document, limit)["token_lengths"]
        histogram = {str(int(k)): int(v) for k, v in lengths["total"]["counts"].items()}
        groups = list(_groups(lengths))
        return TokenizerFacts(
            str(folder),
            settings,
            groups,
            histogram,
            str(lengths["measured_on"]),
            limit,
            explained=explained,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        words = f"its report is damaged ({type(error).__name__}: {error})"
        return TokenizerFacts(str(folder), fault=words)


def _groups(lengths: Mapping[str, Any]) -> Iterator[TokenGroup]:
    yield _group("total", "all", lengths["total"])
    for name, group in lengths["heads"].items():
        yield _group("head", name, group)
    longest = sorted(lengths["datasets"].items(), key=lambda item: -float(item[1]["p99"]))
    for name, group in longest[:MAX_DATASETS]:
        yield _group("dataset", name, group)


def _group(scope: str, name: str, group: Mapping[str, Any]) -> TokenGroup:
    truncated = group.get("truncated_share")
    return TokenGroup(
        scope,
        str(name),
        int(group["n_chunks"]),
        float(group["mean"]),
        float(group["p50"]),
        float(group["p95"]),
        float(group["p99"]),
        int(group["max"]),
        {str(share): int(length) for share, length in group["keeps"].items()},
        None if truncated is None else float(truncated),
        {str(int(length)): int(n) for length, n in group["counts"].items()},
    )
