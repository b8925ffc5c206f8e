"""The verb behind `fit-tokenizer`: the folder, and each dataset's token lengths."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentau_prep.artifacts import Recipe, ensure, publish
from opentau_prep.artifacts.ensure import say_stale
from opentau_prep.artifacts.jsonio import dump_own
from opentau_prep.artifacts.place import Place, check_artifact_root
from opentau_prep.artifacts.rank import main_rank_notices
from opentau_prep.artifacts.store import OverwriteRefusedError, State, inspect, refuse_other_mixture
from opentau_prep.engine import Failure
from opentau_prep.errors import DataError, PrepError
from opentau_prep.notices import shorten_names, warn
from opentau_prep.tokenizer.corpus import Corpus, sample_corpus
from opentau_prep.tokenizer.dataset_files import write_dataset_files
from opentau_prep.tokenizer.fit import Fitted, affordable_chunks, fit_corpus
from opentau_prep.tokenizer.folder import (
    COMMAND,
    REPORT_NAME,
    ProcessorSettings,
    mixture_inputs,
    processor_files,
    read_report,
    tokenizer_place,
)
from opentau_prep.tokenizer.plan import plan_datasets, split_episodes
from opentau_prep.tokenizer.recipes import ActionHeads, action_heads, chunk_recipes
from opentau_prep.tokenizer.report import TokenizerReport, build_report, with_forecast

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedEntry, ResolvedMixture
    from opentau_prep.tokenizer.choose import Candidate
    from opentau_prep.tokenizer.options import FitOptions
    from opentau_prep.tokenizer.plan import DatasetPlan

__all__ = ["Sampling", "prepare_tokenizer", "sample_mixture"]

NORM_NAME = "opentau_action_norm.json"


@dataclass(frozen=True)
class Sampling:
    """The sampled mixture.

    Attributes:
        plans: What was taken from each dataset.
        heads: What they were normalized with.
        corpus: The chunks.
        seconds: Reading metadata, and sampling.
    """

    plans: Sequence[DatasetPlan]
    heads: ActionHeads
    corpus: Corpus
    seconds: tuple[float, float]


def prepare_tokenizer(
    resolved: ResolvedMixture,
    context: RunContext,
    options: FitOptions,
    out_dir: Path,
    *,
    max_length: int | None = None,
) -> TokenizerReport:
    """Fit a tokenizer on the chunks that training would see, or say that it is up to date.

    Writes `out_dir` as a whole (a pilot: a folder of that name with `-pilot` after it), and each
    dataset's token lengths.
    A folder that holds anything else is left alone without `context.force`.

    Args:
        resolved: The mixture.
        context: How to run.
        options: The fit's options.
        out_dir: The tokenizer's folder.
        max_length: The policy's `discrete_action_max_length`, to forecast what it cuts off. It has
            no part in the fit.

    Returns:
        The report; the same on every rank.

    Raises:
        PrepError: Stats of datasets cannot be used (all are named); a dataset failed and
            `context.keep_going` is off; the folder cannot be written or holds something else; or
            a dataset lies in a store and there is no `context.artifact_root`.
    """
    check_artifact_root((entry.meta.root for entry in resolved.entries), context.artifact_root)
    rank = context.this_rank
    if out_dir.name in ("", ".."):
        out_dir = out_dir.resolve()  # a folder next to it can only be named after a name
    with main_rank_notices(rank):
        pilot = out_dir.with_name(f"{out_dir.name}-pilot")
        place = tokenizer_place(pilot if options.pilot else out_dir)
        heads = action_heads(resolved, options, artifact_root=context.artifact_root)
        inputs = mixture_inputs(resolved, heads.sha256, context)
        mixture_id = resolved.mixture.mixture_id
        recipe = Recipe(COMMAND, inputs, options.parameters(), mixture_id=mixture_id)
        fit = _Fit(resolved, context, options, heads, place, recipe)
        dry_run = context.dry_run or fit.keeps_nothing
        report = ensure(fit, rank=rank, force=context.force, dry_run=dry_run)
        report = replace(report, document=with_forecast(report.document, max_length))
        if options.pilot or options.skip_fit or report.status == "shown":
            return report
        artifacts = write_dataset_files(resolved, report.document, options, context)
        return replace(report, artifacts=artifacts)


def sample_mixture(
    resolved: ResolvedMixture,
    context: RunContext,
    options: FitOptions,
    *,
    heads: ActionHeads | None = None,
    scales: tuple[float, ...] | None = None,
) -> Sampling:
    """Return the quantized chunks of a mixture.

    Args:
        resolved: The mixture.
        context: How to run.
        options: The fit's options.
        heads: What to normalize with; read here by default.
        scales: Scales to quantize with, instead of the one in the options.

    Raises:
        PrepError: As `prepare_tokenizer`.
    """
    started = time.perf_counter()
    if heads is None:
        heads = action_heads(resolved, options, artifact_root=context.artifact_root)
    recipes = chunk_recipes(resolved, heads, options, scales or (options.scale,))
    chosen, failures = _with_frames(resolved.entries, options, context.keep_going)
    entries = [resolved.entries[i] for i in chosen]
    plans = plan_datasets(resolved, entries, options, _corpus_size(resolved, entries, options))
    _say_not_held_out(plans, options)
    planned = time.perf_counter()
    corpus = sample_corpus(plans, [recipes[i] for i in chosen], context)
    if corpus.is_held.all():
        raise DataError(
            "no action chunk could be sampled", where="; ".join(f.label for f in corpus.failures)
        )
    corpus = replace(corpus, failures=(*failures, *corpus.failures))
    return Sampling(plans, heads, corpus, (planned - started, time.perf_counter() - planned))


@dataclass(frozen=True)
class _Fit:
    """The tokenizer's folder."""

    resolved: ResolvedMixture
    context: RunContext
    options: FitOptions
    heads: ActionHeads
    place: Place
    recipe: Recipe

    @property
    def places(self) -> Sequence[Place]:
        return (self.place,)

    @property
    def keeps_nothing(self) -> bool:
        """Whether there is nothing to write: the report of samples must not replace a fit."""
        return self.options.skip_fit and (self.place.path / "tokenizer.json").exists()

    def finished(self) -> TokenizerReport | None:
        found = inspect(self.place, self.recipe)
        if not found.fresh:
            return None
        document = read_report(self.place.path)
        failures = [
            Failure(name, DataError(message)) for name, message in document["sample_errors"].items()
        ]
        return TokenizerReport("up to date", self.place.path, document, failures)

    def make(self) -> TokenizerReport:
        place, force = self.place, self.context.force
        if self.keeps_nothing:
            document, _, failures, seconds = _made(self)
            return TokenizerReport("shown", place.path, document, failures, seconds=seconds)
        found = inspect(place, self.recipe)
        refuse_other_mixture(found, self.recipe)  # before the work, not after it
        if found.state in (State.FOREIGN, State.EDITED) and not force:
            raise OverwriteRefusedError(found, b"")
        if found.state in (State.STALE, State.REPARAMETRIZED):
            say_stale(found, place, "it is fitted again")
        document, files, failures, seconds = _made(self)
        outcome = publish(place, files, self.recipe, force=force, dry_run=self.context.dry_run)
        return TokenizerReport(
            outcome.status,
            place.path,
            document,
            failures,
            backup=outcome.backup,
            changes=outcome.changes,
            seconds=seconds,
        )


def _made(
    run: _Fit,
) -> tuple[dict[str, Any], dict[str, bytes], tuple[Failure, ...], dict[str, float]]:
    options, context = run.options, run.context
    sampling = sample_mixture(run.resolved, context, options, heads=run.heads)
    corpus, plans = sampling.corpus, sampling.plans
    seconds = {"metadata": sampling.seconds[0], "sampling": sampling.seconds[1]}
    fitted: Fitted | None = None
    if not options.skip_fit:
        progress = _Progress(context)
        fitted = fit_corpus(corpus, options, len(plans), progress=progress)
        seconds |= {"fit": fitted.seconds[0], "measure": fitted.seconds[1]}
    document = build_report(run.resolved, options, run.heads, plans, corpus, fitted)
    files = {REPORT_NAME: dump_own(document)}
    if fitted is not None:
        settings = ProcessorSettings(
            scale=options.scale,
            vocab_size=options.vocab_size,
            min_token=fitted.min_token,
            action_dim=options.action_dim,
            time_horizon=options.chunk_size,
        )
        norm = {
            "config_version": options.config_version,
            "zero_range_center": options.config_version >= 1,
            "normalization": options.convention.mode,
        }
        files |= {NORM_NAME: dump_own(norm), **processor_files(fitted.fit.tokenizer, settings)}
    return document, files, corpus.failures, seconds


class _Progress:
    """Fits that were tried, of about as many as there may be."""

    def __init__(self, context: RunContext) -> None:
        self._context, self._done = context, 0

    def __call__(self, candidate: Candidate) -> None:
        self._done += 1
        self._context.progress("fitting", self._done, max(8, self._done + 1), "tokenizer")


def _with_frames(
    entries: Sequence[ResolvedEntry], options: FitOptions, keep_going: bool
) -> tuple[list[int], list[Failure]]:
    """Return the positions of the datasets that have frames, and those that have none."""
    chosen: list[int] = []
    failures: list[Failure] = []
    for i, entry in enumerate(entries):
        try:
            split_episodes(entry, replace(options, holdout=0.0))
            chosen.append(i)
        except PrepError as error:
            failures.append(Failure(entry.name, error))
    if failures and (not keep_going or not chosen):
        first = failures[0].error
        if len(failures) == 1:
            raise first
        shown, suffix = shorten_names([failure.label for failure in failures])
        raise DataError(
            f"{len(failures)} datasets cannot be sampled; the first: {first}",
            where=f"{', '.join(shown)}{suffix}",
        )
    return chosen, failures


def _corpus_size(
    resolved: ResolvedMixture, entries: Sequence[ResolvedEntry], options: FitOptions
) -> int:
    """Return how many chunks to sample: no more than any fit could use.

    With `auto` that does not depend on memory: where a fit stops before memory is used up, it is
    the same on every machine.
    """
    if options.total_chunks != "auto":
        return min(options.wanted_chunks, affordable_chunks(options))
    # More chunks than there are frames would only repeat some.
    frames = sum(int(split_episodes(e, replace(options, holdout=0.0))[0].sum()) for e in entries)
    return min(options.wanted_chunks, max(frames, 1))


def _say_not_held_out(plans: Sequence[DatasetPlan], options: FitOptions) -> None:
    without = [plan.entry.name for plan in plans if not len(plan.held_episodes) and plan.n_fit]
    if options.holdout > 0 and without and len(without) < len(plans):
        shown, suffix = shorten_names(without)
        warn(
            "not_held_out",
            "datasets of one episode have none to hold out, so their token lengths are not"
            f" measured: {', '.join(shown)}{suffix}",
            datasets=without,
        )
