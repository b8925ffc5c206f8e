"""What `fit-tokenizer` has to report: the document in `fit_report.json`, and each dataset's part.

Fields that earlier fit reports had keep their names and meaning, so that tools that read those read
these; lists `per_dataset_*` are parallel to `dataset_names`, as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.engine import Failure
from opentau_prep.tokenizer.evaluate import (
    SquaredErrors,
    explained_json,
    length_counts,
    length_stats,
    lengths_that_keep,
    truncated_share,
)
from opentau_prep.tokenizer.quantize import dequantize

if TYPE_CHECKING:
    from opentau_prep.metadata.resolve import ResolvedMixture
    from opentau_prep.tokenizer.corpus import Corpus
    from opentau_prep.tokenizer.fit import Fitted, Measured
    from opentau_prep.tokenizer.options import FitOptions
    from opentau_prep.tokenizer.plan import DatasetPlan
    from opentau_prep.tokenizer.recipes import ActionHeads

__all__ = [
    "TokenizerReport",
    "build_report",
    "forecast",
    "head_names_of",
    "length_groups",
    "round_trips",
    "with_forecast",
]

FORMAT = "opentau-prep/fit-report"
_BLOCK = 512


@dataclass(frozen=True)
class TokenizerReport:
    """The outcome of `fit-tokenizer`.

    Attributes:
        status: `written`, `up to date`, `would write` or `shown` (nothing is written).
        out_dir: The tokenizer's folder.
        document: The content of `fit_report.json`.
        failures: Datasets that were left out.
        artifacts: Dataset name -> what became of its file.
        backup: Where a replaced folder is kept.
        changes: What had changed since the folder that was there was written.
        seconds: Wall-clock seconds by what took them, where something was fitted: not in the
            document, which is the same for the same fit.
    """

    status: str
    out_dir: Path
    document: Mapping[str, Any]
    failures: Sequence[Failure] = ()
    artifacts: Mapping[str, str] | None = None
    backup: Path | None = None
    changes: Sequence[str] = ()
    seconds: Mapping[str, float] | None = None

    @property
    def needs_attention(self) -> bool:
        """Whether a dataset failed."""
        return bool(self.failures)

    def as_json(self) -> dict[str, Any]:
        """Return the report JSON-ready: the same fit gives the same report."""
        return {
            "status": self.status,
            "out_dir": str(self.out_dir),
            **self.document,
            "artifacts": dict(self.artifacts or {}),
            "backup": None if self.backup is None else str(self.backup),
            "changes": list(self.changes),
            "failures": [failure.as_json() for failure in self.failures],
        }


def build_report(
    resolved: ResolvedMixture,
    options: FitOptions,
    heads: ActionHeads,
    plans: Sequence[DatasetPlan],
    corpus: Corpus,
    fitted: Fitted | None,
) -> dict[str, Any]:
    """Return the document of a fit, JSON-ready.

    Args:
        resolved: The mixture.
        options: The fit's options.
        heads: What the datasets were normalized with.
        plans: What was taken from each dataset.
        corpus: The chunks.
        fitted: The tokenizer; None with `skip_fit`.
    """
    head_names = head_names_of(heads, plans)
    document = {
        "format": FORMAT,
        **_facts(resolved, options),
        **_counts(resolved, options, plans, corpus, fitted),
        **_normalization(resolved, heads),
        "sample_errors": {f.label: str(f.error) for f in corpus.failures},
        "quantized": _quantized(corpus, fitted),
        "roundtrip": round_trips(plans, corpus, heads, options.scale),
    }
    if fitted is not None:
        document["fit"] = _fit(fitted)
        document["token_lengths"] = length_groups(plans, fitted.measured, head_names)
        document["explained"] = explained_json(fitted.explained, head_names)
        document["roundtrip"] = {
            **document["roundtrip"],
            "avg_token_length": document["token_lengths"]["total"]["mean"],
            "inexact_chunks": fitted.measured.n_inexact,
        }
    return document


def forecast(group: Mapping[str, Any], max_length: int) -> float:
    """Return the share of a group's chunks that have more than `max_length` tokens.

    Args:
        group: An entry of `token_lengths`.
        max_length: The policy's `discrete_action_max_length`.
    """
    counts = group["counts"]
    lengths = np.repeat([int(length) for length in counts], list(counts.values()))
    return truncated_share(lengths, max_length)


def with_forecast(document: Mapping[str, Any], max_length: int | None) -> dict[str, Any]:
    """Return a document whose `token_lengths` say what a maximum length would cut off."""
    lengths = document.get("token_lengths")
    if max_length is None or lengths is None:
        return {**document, "discrete_action_max_length": max_length}

    def words(group: Mapping[str, Any]) -> dict[str, Any]:
        return {**group, "truncated_share": forecast(group, max_length)}

    return {
        **document,
        "discrete_action_max_length": max_length,
        "token_lengths": {
            **lengths,
            "total": words(lengths["total"]),
            "heads": {name: words(group) for name, group in lengths["heads"].items()},
            "datasets": {name: words(group) for name, group in lengths["datasets"].items()},
        },
    }


def _member(heads: ActionHeads, plan: DatasetPlan) -> int:
    return [member.name for member in heads.members].index(plan.entry.name)


def _facts(resolved: ResolvedMixture, options: FitOptions) -> dict[str, Any]:
    mixture = resolved.mixture
    return {
        "mixture_json": None if mixture.path is None else mixture.path.name,
        "mixture_hash_sha256": mixture.sha256,
        "mixture_id": mixture.mixture_id,
        "n_datasets": len(mixture.datasets),
        "dataset_names": list(mixture.dataset_names),
        "action_freq": mixture.action_freq,
        "vector_resample_strategy": mixture.vector_resample_strategy,
        "sampler": "training_distribution",
        "chunk_size": options.chunk_size,
        "action_dim": options.action_dim,
        "config_version": options.config_version,
        "vocab_size": options.vocab_size,
        "scale": options.scale,
        "max_token_length": options.max_token_length,
        "seed": options.seed,
        "headroom": options.headroom,
        "holdout": options.holdout,
        "memory_budget_bytes": options.memory_bytes,
        "pilot": options.pilot,
        "skip_fit": options.skip_fit,
    }


def _counts(
    resolved: ResolvedMixture,
    options: FitOptions,
    plans: Sequence[DatasetPlan],
    corpus: Corpus,
    fitted: Fitted | None,
) -> dict[str, Any]:
    used = corpus.counts(len(plans)) if fitted is None else list(fitted.counts)
    names = resolved.mixture.dataset_names

    def parallel(values: Sequence[int]) -> list[int]:
        found = [0] * len(names)
        for plan, value in zip(plans, values, strict=True):
            found[plan.entry.index] = int(value)
        return found

    held = np.bincount(corpus.dataset[corpus.is_held], minlength=len(plans))
    return {
        "total_chunks_target": options.total_chunks,
        "total_chunks_requested": options.total_chunks,
        "total_chunks_sampled": int((~corpus.is_held).sum()),
        "total_chunks_actual": sum(used),
        "per_dataset_chunks": parallel(used),
        "held_out_chunks": int(corpus.is_held.sum()),
        "per_dataset_held_out_chunks": parallel(held.tolist()),
        "per_dataset_held_out_episodes": parallel([len(plan.held_episodes) for plan in plans]),
        "not_held_out": [plan.entry.name for plan in plans if not len(plan.held_episodes)],
        "chunks_left_out": {
            plan.entry.name: n for plan, n in zip(plans, corpus.n_left_out, strict=True) if n
        },
    }


def _normalization(resolved: ResolvedMixture, heads: ActionHeads) -> dict[str, Any]:
    keys: list[str | None] = [None] * len(resolved.mixture.datasets)
    for member, row in zip(heads.members, heads.rows, strict=True):
        keys[member.entry.index] = heads.keys[row]
    whole = (None, None) if heads.per_head or heads.whole is None else heads.whole
    return {
        "normalization": "per_robot_type_control_mode" if heads.per_head else "global",
        "normalization_mode": heads.convention.mode,
        "global_action_min": whole[0],
        "global_action_max": whole[1],
        "per_dataset_norm_keys": keys,
        "n_norm_heads": len(heads.keys),
        "per_head_action_stats": heads.stats_json(),
    }


def _quantized(corpus: Corpus, fitted: Fitted | None) -> dict[str, Any]:
    own = corpus.values[0][~corpus.is_held]
    found: dict[str, Any] = {"min": int(own.min()), "max": int(own.max())}
    if fitted is not None:
        found |= {"min_token": fitted.min_token, "clipped": asdict(fitted.clipped)}
    return found


def round_trips(
    plans: Sequence[DatasetPlan],
    corpus: Corpus,
    heads: ActionHeads,
    scale: float,
    scale_index: int = 0,
) -> dict[str, Any]:
    """Return what quantization with one of a corpus's scales loses of held-out chunks.

    Both in normalized units and in those of the datasets, the latter without padded dims.
    """
    names = head_names_of(heads, plans)
    normal = _quantization_errors(corpus, len(plans), scale, scale_index)
    native = [
        None if error is None else error.in_units(heads.half_ranges(_member(heads, plan)))
        for plan, error in zip(plans, normal, strict=True)
    ]

    def words(mine: Sequence[bool]) -> dict[str, Any] | None:
        one, other = (
            SquaredErrors.total(e for e, own in zip(errors, mine, strict=True) if own)
            for errors in (normal, native)
        )
        if one is None or other is None:
            return None
        return {
            "mse": one.mse,
            "max_abs_error": one.max_abs,
            "native_mse": other.mse,
            "native_max_abs_error": other.max_abs,
            "native_mse_per_dim": (other.squared / other.counts).tolist(),
        }

    total = words([True] * len(plans))
    if total is None:
        return {"roundtrip_mse": None, "native_mse": None}
    each = {name: words([own == name for own in names]) for name in dict.fromkeys(names)}
    own = {plan.entry.name: words([i is plan for i in plans]) for plan in plans}
    return {
        "roundtrip_mse": total["mse"],
        "max_abs_error": total["max_abs_error"],
        "native_mse": total["native_mse"],
        "heads": {name: found for name, found in each.items() if found is not None},
        "datasets": {name: found for name, found in own.items() if found is not None},
    }


def _quantization_errors(
    corpus: Corpus, n_datasets: int, scale: float, scale_index: int
) -> list[SquaredErrors | None]:
    values = corpus.values[scale_index]
    held = np.flatnonzero(corpus.is_held)
    size = {"time_horizon": corpus.normal.shape[1], "action_dim": corpus.normal.shape[2]}
    errors: list[SquaredErrors | None] = []
    for dataset in range(n_datasets):
        mine = np.flatnonzero(corpus.dataset[held] == dataset)
        blocks = [mine[i : i + _BLOCK] for i in range(0, len(mine), _BLOCK)]
        parts = (
            SquaredErrors.of(corpus.normal[rows], dequantize(values[held[rows]], scale, **size))
            for rows in blocks
        )
        errors.append(SquaredErrors.total(parts))
    return errors


def _fit(fitted: Fitted) -> dict[str, Any]:
    fit = fitted.fit
    return {
        "max_token_length": fit.chosen.max_token_length,
        "n_chunks": fit.chosen.n_chunks,
        "stopped_by": fit.stopped_by,
        "tokens": fit.tokenizer.get_vocab_size(),
        "candidates": [asdict(candidate) for candidate in fit.candidates],
        "vocabulary": asdict(fitted.measured.vocabulary),
    }


def head_names_of(heads: ActionHeads, plans: Sequence[DatasetPlan]) -> list[str]:
    """Return the key of each dataset's head."""
    return [heads.keys[heads.rows[_member(heads, plan)]] for plan in plans]


def length_groups(
    plans: Sequence[DatasetPlan], measured: Measured, head_names: Sequence[str]
) -> dict[str, Any]:
    """Return the distribution of token lengths in all, by head and by dataset, JSON-ready."""
    own = [measured.dataset == i for i in range(len(plans))]
    heads = {}
    for name in dict.fromkeys(head_names):
        mine = np.isin(measured.dataset, [i for i, head in enumerate(head_names) if head == name])
        # A head whose datasets have no share in the total is decided by what there is of them.
        shared = mine & measured.in_share
        heads[name] = measured.lengths[shared if shared.any() else mine]
    datasets = {
        plan.entry.name: measured.lengths[mine] for plan, mine in zip(plans, own, strict=True)
    }
    return {
        "measured_on": "held-out episodes" if measured.held_out else "fitted chunks",
        "total": _group(measured.lengths[measured.in_share]),
        "heads": {name: _group(lengths) for name, lengths in heads.items() if lengths.size},
        "datasets": {name: _group(lengths) for name, lengths in datasets.items() if lengths.size},
    }


def _group(lengths: npt.NDArray[np.int64]) -> dict[str, Any]:
    kept = lengths_that_keep(lengths)
    return {
        **asdict(length_stats(lengths)),
        "keeps": {f"{share:g}": length for share, length in kept.items()},
        "counts": length_counts(lengths),
    }
