"""N: a tokenizer folder (`--tokenizer DIR`) against the mixture that it is meant for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from opentau_prep.artifacts.jsonio import load_own
from opentau_prep.errors import PrepError
from opentau_prep.normalization import Convention
from opentau_prep.notices import collect_notices
from opentau_prep.validate.artifacts import spec_of
from opentau_prep.validate.findings import Hit, hit, listed
from opentau_prep.validate.rule import Rule

if TYPE_CHECKING:
    from opentau_prep.validate.mixture_view import MixtureView
    from opentau_prep.validate.tokenizer_view import TokenizerFolder
    from opentau_prep.validate.view import DatasetView

__all__ = ["RULES"]

TRUNCATED = 0.01
Range = tuple[npt.NDArray[Any], npt.NDArray[Any]]
PROCESSOR, NORM, REPORT = "processor_config.json", "opentau_action_norm.json", "fit_report.json"
# Of folders that do not name theirs.
_OLD_MODE = "MIN_MAX"
_PER_HEAD = "per_robot_type_control_mode"


def _folder(view: MixtureView) -> TokenizerFolder | None:
    if view.options.tokenizer is None:
        return None
    from opentau_prep.validate.tokenizer_view import read_folder

    return read_folder(Path(view.options.tokenizer))


def unreadable(view: MixtureView) -> Iterator[Hit]:
    folder = _folder(view)
    for name, why in folder.faults if folder else ():
        yield hit(why, file=f"{folder.path if folder else ''}/{name}")


def other_mixture(view: MixtureView) -> Iterator[Hit]:
    folder = _folder(view)
    fitted = (folder.report or {}).get("mixture_hash_sha256") if folder else None
    own = view.mixture.sha256 if view.mixture and not view.subject.faults else None
    if fitted and own and fitted != own:
        yield hit(
            f"was fitted on another mixture ({str(fitted)[:12]}, this one is {own[:12]})",
            file=REPORT,
        )


def settings_differ(view: MixtureView) -> Iterator[Hit]:
    folder = _folder(view)
    if folder is None or folder.settings is None or folder.report is None:
        return
    settings = folder.settings
    for field, used in (
        ("chunk_size", settings.time_horizon),
        ("action_dim", settings.action_dim),
        ("scale", settings.scale),
        ("vocab_size", settings.vocab_size),
    ):
        fitted = folder.report.get(field)
        if fitted is not None and fitted != used:
            yield hit(f"the fit had {field} {fitted}, the processor has {used}", file=PROCESSOR)


def chunk_size_differs(view: MixtureView) -> Iterator[Hit]:
    folder = _folder(view)
    if view.options.chunk_size is None or folder is None or folder.settings is None:
        return
    if folder.settings.time_horizon != view.options.chunk_size:
        yield hit(
            f"encodes chunks of {folder.settings.time_horizon} steps, the policy's have"
            f" {view.options.chunk_size}",
            file=PROCESSOR,
        )


def version_differs(view: MixtureView) -> Iterator[Hit]:
    folder = _folder(view)
    if folder is None or folder.norm is None:
        return
    version = folder.norm.get("config_version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        yield hit(f"config_version is {version!r}, not a whole number"[:100], file=NORM)
        return
    fitted = (folder.report or {}).get("config_version", version)
    if fitted != version:
        yield hit(f"the fit had config_version {fitted}, the folder says {version}", file=NORM)
    if folder.norm.get("zero_range_center") is not (version >= 1):
        yield hit(f"zero_range_center contradicts config_version {version}", file=NORM)
    mode = folder.norm.get("normalization", _OLD_MODE)
    report = folder.report or {"normalization_mode": mode}
    fitted = report.get("normalization_mode", _OLD_MODE)
    if fitted != mode:
        yield hit(f"the fit normalized by {fitted!r}, the folder says {mode!r}"[:100], file=NORM)


def too_narrow(view: MixtureView) -> Iterator[Hit]:
    folder = _folder(view)
    if folder is None or folder.settings is None:
        return
    width = folder.settings.action_dim
    wide = [f"{m.name} {m.raw_dims[1]}" for m in view.members if m.raw_dims[1] > width]
    if wide:
        yield hit(f"encodes {width} action dims, but has more: {listed(wide)}", file=PROCESSOR)


def heads_differ(view: MixtureView) -> Iterator[Hit]:
    folder = _folder(view)
    report = folder.report if folder else None
    fitted = (report or {}).get("per_head_action_stats")
    if not isinstance(fitted, Mapping) or (report or {}).get("normalization") != _PER_HEAD:
        return
    names = _stat_names((report or {}).get("normalization_mode", _OLD_MODE))
    own = None if names is None else _action_stats(view, names)
    if own is None or names is None:
        return
    unknown = [key for key in own if key not in fitted]
    if unknown:
        yield hit(f"knows nothing of the heads {listed(unknown)}", file=REPORT)
    for key, stats in own.items():
        if key in fitted and (dims := _unlike(fitted[key], stats)):
            yield hit(
                f"was fitted with other {' and '.join(names)} of head {key!r}",
                file=REPORT,
                dims=dims,
            )


def _stat_names(mode: Any) -> tuple[str, str] | None:
    try:
        return Convention.of(mode).stat_names
    except (PrepError, TypeError):
        return None  # not one of our reports


def _action_stats(
    view: MixtureView, names: tuple[str, str]
) -> dict[str, dict[str, npt.NDArray[Any]]] | None:
    """Return head key -> stat name -> values; None where they cannot be had."""
    if not view.members or not all(member.stats for member in view.members):
        return None
    from opentau_prep.heads.build import build_norm_heads

    try:
        with collect_notices():
            heads = build_norm_heads(
                dataset_names=[m.name for m in view.members],
                per_dataset_stats=[m.stats for m in view.members],
                metadatas=view.members,
                raw_dims=[m.raw_dims for m in view.members],
            )
    except PrepError:
        return None  # reported by the rules on heads
    found = {}
    for key, head in zip(heads.norm_keys, heads.per_norm_key_stats, strict=True):
        if any(name not in head["actions"] for name in names):
            return None  # a member without quantiles: reported by the rules on stats
        found[key] = {name: head["actions"][name] for name in names}
    return found


def _unlike(fitted: Any, stats: Mapping[str, npt.NDArray[Any]]) -> list[int]:
    """Return the dims whose stats are other ones, to float32 precision."""
    try:
        there = {name: np.asarray(fitted[name], dtype=np.float64).ravel() for name in stats}
    except (KeyError, TypeError, ValueError):
        return list(range(min(len(own) for own in stats.values())))
    width = min(len(each) for each in (*there.values(), *stats.values()))
    with np.errstate(over="ignore"):
        same = [
            np.isclose(there[name][:width], own[:width].astype(np.float64), rtol=1e-5, atol=1e-7)
            for name, own in stats.items()
        ]
    return [int(d) for d in np.flatnonzero(~(same[0] & same[1]))]


def truncates(view: MixtureView) -> Iterator[Hit]:
    folder = _folder(view)
    lengths = ((folder.report or {}) if folder else {}).get("token_lengths")
    datasets = lengths.get("datasets") if isinstance(lengths, Mapping) else None
    if view.options.max_tokens is None or not isinstance(datasets, Mapping):
        return
    words = []
    for name, group in datasets.items():
        share = _truncated(group, view.options.max_tokens)
        if share is not None and share > TRUNCATED:
            words.append(f"{name} {share:.1%}")
    if words:
        yield hit(
            f"chunks of more than {view.options.max_tokens:,} tokens, by dataset: {listed(words)}",
            file=REPORT,
        )


def _truncated(group: object, max_tokens: int) -> float | None:
    from opentau_prep.tokenizer.report import forecast

    try:
        return float(forecast(group, max_tokens))  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None  # not one of our groups


def truncated_before(view: DatasetView) -> Iterator[Hit]:
    for rel, found in view.artifacts.items():
        if spec_of(rel).name != "action_tokens" or found.content is None or rel in view.torn:
            continue
        document = load_own(found.content, where=rel)
        entries = document.get("entries") if isinstance(document, Mapping) else None
        for entry in entries if isinstance(entries, list) else ():
            lengths = entry.get("token_lengths") if isinstance(entry, Mapping) else None
            share = lengths.get("truncated_share") if isinstance(lengths, Mapping) else None
            if isinstance(share, (int, float)) and share > TRUNCATED:
                yield hit(
                    f"{share:.1%} of the chunks of {entry.get('dataset')} have more than"
                    f" {document.get('discrete_action_max_length')} tokens",
                    file=rel,
                )


_FIT = "Fit it again on this mixture, with the policy's sizes."
RULES = (
    Rule(
        "N001",
        "tokenizer-unreadable",
        "error",
        "A file of the tokenizer folder is missing or malformed.",
        "The policy cannot load it, or loads it without knowing how actions were normalized.",
        _FIT,
        unreadable,
        "mixture",
    ),
    Rule(
        "N002",
        "tokenizer-other-mixture",
        "warning",
        "The tokenizer was fitted on another mixture, or on an older state of this one.",
        "Its tokens are cut for other motions: sequences get longer, and some are truncated.",
        _FIT,
        other_mixture,
        "mixture",
    ),
    Rule(
        "N003",
        "tokenizer-settings",
        "error",
        "Chunk size, action dims, scale or vocabulary of the processor are not those of the fit.",
        "Chunks of another shape are encoded: decoding fails or gives other actions.",
        "Restore the folder; it was edited.",
        settings_differ,
        "mixture",
    ),
    Rule(
        "N009",
        "tokenizer-chunk-size",
        "error",
        "The tokenizer encodes chunks of another number of steps than `--chunk-size`.",
        "Decoding fails the shape check, and gives zeros.",
        _FIT,
        chunk_size_differs,
        "mixture",
    ),
    Rule(
        "N004",
        "tokenizer-config-version",
        "error",
        "`opentau_action_norm.json` names another config version or normalization mode than the"
        " fit, or contradicts itself.",
        "Padded and constant dims are normalized to -1 in one version and 0 in the other: the"
        " policy sees tokens that the fit never saw.",
        _FIT,
        version_differs,
        "mixture",
    ),
    Rule(
        "N005",
        "tokenizer-narrow",
        "warning",
        "Datasets have more action dims than the tokenizer encodes.",
        "The dims beyond are dropped: the robot never gets a command for them.",
        "Fit with a larger --max-action-dim, or select dims with action_index.",
        too_narrow,
        "mixture",
    ),
    Rule(
        "N006",
        "tokenizer-heads",
        "error",
        "The stats of the norm heads are not those that the tokenizer was fitted with, or heads"
        " have come in.",
        "Training normalizes with other numbers than the fit did: tokens mean other motions.",
        _FIT,
        heads_differ,
        "mixture",
    ),
    Rule(
        "N007",
        "tokenizer-truncates",
        "warning",
        f"By the fit's own report, over {TRUNCATED:.0%} of a dataset's chunks have more tokens than"
        " `--discrete-action-max-length`.",
        "The ends of these chunks are cut off, and decode to nothing.",
        "Raise discrete_action_max_length, shorten the chunks, or raise the vocabulary.",
        truncates,
        "mixture",
    ),
    Rule(
        "N008",
        "tokens-truncated",
        "warning",
        f"By what `fit-tokenizer` measured, over {TRUNCATED:.0%} of the dataset's chunks have more"
        " tokens than the policy that was asked for takes.",
        "The ends of these chunks are cut off, and decode to nothing.",
        "Raise discrete_action_max_length, shorten the chunks, or raise the vocabulary.",
        truncated_before,
    ),
)
