"""`opentau-prep run`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from opentau_prep.cli.command import Result
from opentau_prep.cli.given import fit_given_by, given_by
from opentau_prep.cli.options import (
    FitFlags,
    HeadFlags,
    MixtureJson,
    Roots,
    ShardOption,
    StatsFlags,
    TokenLimit,
)
from opentau_prep.errors import PrepError

if TYPE_CHECKING:
    from opentau_prep.cli.session import Session
    from opentau_prep.config.schema import Mixture
    from opentau_prep.notices import Notice
    from opentau_prep.pipeline import PipelineResult

__all__ = ["run"]


def run(
    session: Session,
    *,
    stats: StatsFlags,
    heads: HeadFlags,
    tokenizer: FitFlags,
    roots: Roots = None,
    mixture_json: MixtureJson = None,
    discrete_action_max_length: TokenLimit = None,
    shard: ShardOption = None,
) -> Result:
    """Prepare a mixture: every step in order, each skipped when it is fresh.

    Takes the options of its steps and remembers them for later runs, until --force. Sizes that are
    not given come from the training config, when the mixture is part of one. The last line is the
    verdict, the same as that of `report`: "Ready to train." and exit code 0, or what is left to do
    and exit code 1.

    \b
    opentau-prep run --mixture-json mixture.json
    opentau-prep run --mixture-json mixture.json --dry-run
    opentau-prep run --mixture-json mixture.json --published-stats keep
    opentau-prep run --mixture-json mixture.json --shard 3/8
    """
    from opentau_prep.cli.targets import named_mixture

    session.work_on(shard)
    given = {**given_by(stats, heads), **fit_given_by(tokenizer)}
    given["discrete_action_max_length"] = discrete_action_max_length
    if stats.quantiles:
        given["quantiles"] = tuple(stats.quantiles)
    return _run(session, named_mixture(roots, mixture_json), given)


def _run(session: Session, mixture: Mixture, given: Mapping[str, Any]) -> Result:
    """Carry out a run, unless it is known to find nothing to do."""
    from opentau_prep.cli.run_tables import run_tables
    from opentau_prep.notices import collect_notices
    from opentau_prep.pipeline import has_written, run_memory, run_pipeline

    context = session.context
    # What --no-persist writes is never found again.
    memory = run_memory(mixture, context, given, active=not session.common.no_persist)
    known = None if session.common.verbose else memory.recall()
    if known is not None:
        return _as_kept(session, known)
    memory.note()
    done = run_pipeline(mixture, context, given)
    result = Result(
        done.as_json(),
        run_tables(done, verbose=session.common.verbose),
        exit_code=int(done.needs_attention),
    )
    if done.verdict is not None and done.verdict.ready and memory.active:
        emitted = session.notices
        if has_written():
            memory.note()
            with collect_notices() as emitted, suppress(PrepError):
                done = run_pipeline(mixture, context, given)
        if not has_written() and done.verdict is not None and done.verdict.ready:
            memory.keep(_to_keep(done, emitted))
    return result


def _to_keep(done: PipelineResult, emitted: Sequence[Notice]) -> bytes:
    """Return the outcome of a run that found nothing to do: what it shows, then its document."""
    from opentau_prep.artifacts.jsonio import dump_own
    from opentau_prep.cli.run_tables import run_text

    head = {"text": run_text(done), "notices": [vars(notice) for notice in emitted]}
    return json.dumps(head).encode("ascii") + b"\n" + dump_own(done.as_json())


def _as_kept(session: Session, known: bytes) -> Result:
    from opentau_prep.artifacts.jsonio import load_own
    from opentau_prep.cli.run_tables import shown_again
    from opentau_prep.notices import Notice, emit

    head, _, document = known.partition(b"\n")
    found = json.loads(head)
    for each in found["notices"]:
        dims = None if each["dims"] is None else tuple(each["dims"])
        emit(Notice(**{**each, "dims": dims}))
    # Of thousands of datasets it is large, and only --json and the other ranks show it.
    wanted = session.common.json or session.rank.world_size > 1
    payload = load_own(document, where="run") if wanted else {}
    return Result(payload, shown_again(found["text"]))
