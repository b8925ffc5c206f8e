"""The verb behind `forecast`: stats of any origin against a mixture's data."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from opentau_prep.artifacts import Recipe, publish
from opentau_prep.artifacts.jsonio import dump_own
from opentau_prep.artifacts.place import file_place
from opentau_prep.artifacts.rank import main_rank_notices
from opentau_prep.engine import Failure
from opentau_prep.errors import MetadataError, PrepError
from opentau_prep.forecast.frames import Counted, DeepFeature, DeepJob, DeepResult, count_frames
from opentau_prep.forecast.judge import FeatureJudged, find, verdict_of
from opentau_prep.forecast.measure import affine_of, feature_modes, is_padding, measure
from opentau_prep.forecast.members import Member, MemberFeature, read_members
from opentau_prep.forecast.mismatch import Mismatch, find_mismatches, find_padding
from opentau_prep.forecast.report import Forecast, ForecastOptions, MemberForecast, ModeForecast
from opentau_prep.forecast.rules import OWN_HEADS
from opentau_prep.forecast.sets import FeatureStats, StatSet, StatsSource
from opentau_prep.forecast.sources import load_stats_source
from opentau_prep.heads.audit import audit_heads
from opentau_prep.heads.members import VECTOR_FEATURES
from opentau_prep.heads.mixture import build_mixture_heads
from opentau_prep.heads.options import HeadOptions
from opentau_prep.notices import collect_notices
from opentau_prep.storage import absolute_root

if TYPE_CHECKING:
    from opentau_prep.artifacts.store import Outcome
    from opentau_prep.context import RunContext
    from opentau_prep.forecast.formulas import Affine, Normalization
    from opentau_prep.metadata.resolve import ResolvedMixture

__all__ = ["forecast_members", "make_forecast", "own_heads"]

COMMAND = "forecast"
SCHEMA_VERSION = 1


def make_forecast(
    resolved: ResolvedMixture,
    context: RunContext,
    options: ForecastOptions | None = None,
    *,
    out: Path | None = None,
) -> Forecast:
    """Return what a policy would see under some stats, and write it to `forecast.json`.

    Reads metadata and sketches; with `options.deep`, the selected frames too, once.

    Args:
        resolved: The mixture.
        context: How to run.
        options: Which stats, whose formula, and how deep.
        out: The artifact; None writes nothing.

    Raises:
        ConfigError: The stats cannot be found, or none of them is for a dataset.
        PrepError: Stats or frames cannot be read.
    """
    options = options or ForecastOptions()
    rank = context.this_rank
    with main_rank_notices(rank):
        source = (
            own_heads(resolved, context, options)
            if options.stats is None
            else load_stats_source(options.stats)
        )
        if source.audited is None and source.kind == "norm heads":
            source = _if_own(source, resolved, context, options)
        if options.formula is not None:
            source = replace(source, formula=options.formula)
        members = read_members(
            resolved, artifact_root=context.artifact_root, chunk_size=options.chunk_size
        )
        chosen = [_choose(source, member, options) for member in members]
        deep = _count(members, chosen, source, context, options) if options.deep else {}
        judged = [
            _forecast(member, stats, source, options, deep.get(i), _target(resolved, context))
            for i, (member, stats) in enumerate(zip(members, chosen, strict=True))
        ]
        forecast = Forecast(source.kind, source.path, source.formula, options.deep, judged)
        if out is None or not rank.is_main:
            return forecast
        return replace(forecast, out=_publish(forecast, resolved, context, options, out))


def forecast_members(
    members: Sequence[Member], source: StatsSource, options: ForecastOptions, target: str
) -> list[MemberForecast]:
    """Return what stats make of datasets whose distributions are known already.

    Args:
        members: The datasets.
        source: The stats.
        options: Whose formula, and which modes; `deep` has no effect.
        target: What names the mixture on a command line.
    """
    return [
        _forecast(member, _choose(source, member, options), source, options, None, target)
        for member in members
    ]


def own_heads(
    resolved: ResolvedMixture,
    context: RunContext,
    options: ForecastOptions,
    *,
    audit: bool = True,
) -> StatsSource:
    """Return the heads that training would build now, as a source of stats; `audit` them or not."""
    widths = [
        int(np.prod(entry.meta.features[column].shape))
        for entry in resolved.entries
        for feature, column in entry.name_map.columns.items()
        if feature in VECTOR_FEATURES and column in entry.meta.features
    ]
    widest = max(1, *widths) if widths else 32
    built = build_mixture_heads(
        resolved,
        HeadOptions(widest, widest, chunk_size=options.chunk_size),
        artifact_root=context.artifact_root,
    )
    heads = built.heads
    sets = [
        StatSet(
            key,
            {
                f: {s: np.asarray(v, np.float64) for s, v in stats[f].items() if s != "count"}
                for f in VECTOR_FEATURES
            },
            list(heads.norm_key_to_dataset_names[key]),
        )
        for key, stats in zip(heads.norm_keys, heads.per_norm_key_stats, strict=True)
    ]
    found: dict[tuple[str, str], list[Mismatch]] = {}
    for each in audit_heads(built.members).findings if audit else ():
        detail = each.message.partition("for example ")[2] or each.message
        for feature, dims in each.dims.items():
            exact = "looks like" not in each.message
            mismatch = Mismatch(each.kind, dims, detail, exact)
            found.setdefault((each.dataset, feature), []).append(mismatch)
    return StatsSource("norm heads", OWN_HEADS, "opentau", sets, audited=found)


def _if_own(
    source: StatsSource, resolved: ResolvedMixture, context: RunContext, options: ForecastOptions
) -> StatsSource:
    """Return the mixture's own heads where those of a file are the same, else the file's."""
    with collect_notices():
        try:
            own = own_heads(resolved, context, options)
        except PrepError:
            return source
    theirs = {each.name: each.features for each in source.sets}

    def same(name: str, feature: str, stat: str, values: NDArray[np.float64]) -> bool:
        other = theirs.get(name, {}).get(feature, {}).get(stat)
        width = 0 if other is None else min(len(values), len(other))
        return other is not None and np.allclose(
            values[:width], other[:width], rtol=1e-6, equal_nan=True
        )

    return (
        replace(own, path=f"{OWN_HEADS} ({source.path})")
        if all(
            same(each.name, feature, stat, values)
            for each in own.sets
            for feature, stats in each.features.items()
            for stat, values in stats.items()
        )
        else source
    )


def _target(resolved: ResolvedMixture, context: RunContext) -> str:
    """Return the arguments that name the mixture on a command line, in any folder."""
    path, elsewhere = resolved.mixture.path, context.artifact_root
    words = [absolute_root(dataset.root) for dataset in resolved.datasets]
    if path is not None:
        words = ["--mixture-json", str(path.absolute())]
    words += [] if elsewhere is None else ["--artifact-root", str(elsewhere.absolute())]
    return shlex.join(words)


def _choose(source: StatsSource, member: Member, options: ForecastOptions) -> StatSet:
    names = [member.name, member.entry.meta.repo_id]
    return source.choose(names, member.norm_key, options.stats_key)


def _modes(
    source: StatsSource, feature: str, stats: FeatureStats, options: ForecastOptions
) -> list[Normalization]:
    there = feature_modes(stats)
    if options.normalization is None and source.modes.get(feature, "all") is None:
        return []  # it declares that values stay as they are
    wanted = options.normalization or source.modes.get(feature)
    if wanted is None:  # the 10 % quantiles are an option of LeRobot's that must be declared
        return [mode for mode in there if mode != "quantile10"]
    return [wanted] if wanted in there else []


def _count(
    members: Sequence[Member],
    chosen: Sequence[StatSet],
    source: StatsSource,
    context: RunContext,
    options: ForecastOptions,
) -> dict[int, DeepResult]:
    jobs, places = [], []
    for i, (member, stats) in enumerate(zip(members, chosen, strict=True)):
        features = {}
        for name, own in member.features.items():
            if own.is_delta or name not in stats.features:
                continue
            fitted = _fitted(own, _selected(own, stats.features[name]))
            modes = _modes(source, name, fitted, options)
            affines = {m: affine_of(source.formula, m, fitted) for m in modes}
            known: dict[str, Affine] = {m: a for m, a in affines.items() if a is not None}
            features[name] = DeepFeature(own.column, own.index[: _width(fitted)], known)
        if features:
            jobs.append(DeepJob(member.entry.meta, member.entry.episodes.tolist(), features))
            places.append(i)
    labels = [members[i].name for i in places]
    results = context.map("forecast", count_frames, jobs, labels)
    failed = [r for r in results if isinstance(r, Failure)]
    if failed:
        raise failed[0].error
    return {
        i: r for i, r in zip(places, results, strict=True) if not isinstance(r, Failure)
    }  # fmt: skip


def _width(stats: FeatureStats) -> int:
    return len(next(iter(stats.values())))


def _fitted(own: MemberFeature, stats: FeatureStats) -> dict[str, NDArray[np.float64]]:
    """Return stats of as many dims as both have."""
    width = min(own.distribution.dims, _width(stats))
    return {name: values[:width] for name, values in stats.items()}


def _selected(own: MemberFeature, stats: FeatureStats) -> FeatureStats:
    """Return stats of the dims that are trained on, where those given are of the whole column."""
    raw, dims = own.raw_dims, len(own.index)
    of_column = _width(stats) >= raw > dims and is_padding(stats, raw)
    if not of_column or is_padding(stats, dims):
        return stats
    return {name: values[own.index] for name, values in stats.items()}


def _forecast(
    member: Member,
    stats: StatSet,
    source: StatsSource,
    options: ForecastOptions,
    deep: DeepResult | None,
    target: str,
) -> MemberForecast:
    judged = []
    for name, own in member.features.items():
        judged.append(_judge(member.name, name, own, stats, source, options, deep))
    findings = [f for each in judged for f in find(member.name, each, target)]
    called = source.kind if source.kind.endswith("stats") else f"stats of the {source.kind}"
    called = f"the {called}" + (f" {stats.name!r}" if stats.name else "")
    modes = [mode for each in judged for mode in each.modes]
    verdict, reason = verdict_of(findings, called, modes)
    return MemberForecast(
        member.name, member.norm_key, stats.name, modes, findings, verdict, reason
    )


def _judge(
    dataset: str,
    name: str,
    own: MemberFeature,
    stats: StatSet,
    source: StatsSource,
    options: ForecastOptions,
    deep: DeepResult | None,
) -> FeatureJudged:
    fault = source.faults.get(name)
    found = stats.features.get(name)
    if not found:
        fault = fault or f"there are no stats of {name} in the {source.kind}"
        return FeatureJudged(name, own.names, (), (), (), fault=fault)
    found = _selected(own, found)
    fitted = _fitted(own, found)
    distribution = own.distribution
    width, wide = distribution.dims, _width(found)
    empty = np.arange(wide, width)
    padded = len(empty) > 0 and not (
        distribution.low[empty].any() or distribution.high[empty].any()
    )
    differs = (wide < width and not padded) or (wide > width and not is_padding(found, width))
    counts: Mapping[str, Counted] = {}
    if deep is not None and name in deep.distributions:
        distribution, counts = deep.distributions[name], deep.counts[name]
    else:
        distribution = distribution.select(np.arange(min(width, wide)))
    mask = stats.normalized.get(name)
    modes = _modes(source, name, fitted, options)
    if not modes and source.modes.get(name, "all") is not None:
        wanted = options.normalization or source.modes.get(name)
        fault = fault or f"{wanted} needs stats that are not there ({', '.join(fitted)} are)"
    forecasts = [
        ModeForecast(
            name,
            mode,
            [
                dim
                for dim in measure(distribution, fitted, mode, source.formula, counts.get(mode))
                if mask is None or dim.dim >= len(mask) or mask[dim.dim]
            ],
            own.names,
            distribution.origin,
        )
        for mode in modes
    ]
    if source.audited is None:
        mismatches = find_mismatches(distribution, fitted, own.grippers)
    else:
        mismatches = find_padding(distribution, fitted)
        mismatches += source.audited.get((dataset, name), ())
    if padded:
        detail = f"always 0 in the dataset, and not among the {wide} dims of the stats"
        mismatches.insert(0, Mismatch("padding", tuple(empty.tolist()), detail, exact=True))
    if mask is not None:
        mismatches = [m for m in mismatches if any(d < len(mask) and mask[d] for d in m.dims)]
    moving = (distribution.high > distribution.low).tolist()
    widths = (width, wide) if differs else None
    pooled = source.kind == "norm heads" and len(stats.members) > 1
    alone = options.stats is None and len(stats.members) == 1
    return FeatureJudged(
        name, own.names, moving, forecasts, mismatches, widths, fault, pooled, alone
    )


def _publish(
    forecast: Forecast,
    resolved: ResolvedMixture,
    context: RunContext,
    options: ForecastOptions,
    out: Path,
) -> Outcome:
    content = dump_own(forecast.document())
    inputs = {
        "mixture": {
            "count": len(resolved.mixture.datasets),
            "sha256": resolved.mixture.sha256,
        },
        "stats": {"count": len(forecast.members), "sha256": _digest(options)},
    }
    given = {**asdict(options), "stats": None if options.stats is None else str(options.stats)}
    place = file_place("forecast", out, schema_version=SCHEMA_VERSION)
    recipe = Recipe(COMMAND, inputs, given, mixture_id=resolved.mixture.mixture_id)
    return publish(place, content, recipe, force=context.force, dry_run=context.dry_run)


def _digest(options: ForecastOptions) -> str:
    if options.stats is None or not options.stats.is_file():
        return hashlib.sha256(b"").hexdigest()
    try:
        return hashlib.sha256(options.stats.read_bytes()).hexdigest()
    except OSError as error:
        raise MetadataError(
            f"cannot be read ({error.strerror})", where=str(options.stats)
        ) from error
