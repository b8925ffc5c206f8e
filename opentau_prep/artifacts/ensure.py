"""The whole life of an artifact in one call: skipped when fresh, else made by one rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from opentau_prep import notices
from opentau_prep.artifacts.atomic import folder_lock, is_writable, not_writable
from opentau_prep.artifacts.place import Place
from opentau_prep.artifacts.provenance import Recipe
from opentau_prep.artifacts.rank import Rank, main_rank_notices, wait_for
from opentau_prep.artifacts.store import (
    Inspection,
    Outcome,
    State,
    Status,
    heal,
    inspect,
    publish,
    refuse_other_mixture,
)

__all__ = ["Artifact", "ensure", "wait_until_fresh"]


@dataclass(frozen=True)
class Artifact:
    """An artifact's bytes, the same on every rank, and what became of the file.

    Attributes:
        content: The bytes.
        outcome: What was done; see `Outcome`.
    """

    content: bytes
    outcome: Outcome


def ensure(
    place: Place,
    build: Callable[[], bytes],
    recipe: Recipe,
    *,
    rank: Rank | None = None,
    force: bool = False,
    dry_run: bool = False,
    keep_stale: bool = False,
    timeout_s: float | None = None,
) -> Artifact:
    """Return an up-to-date artifact: the one that is there, or a new one.

    The main rank builds and writes it; the others wait until the files on disk match the inputs and
    parameters. Where nothing can be written, and in a dry run, every rank builds it for itself.

    Args:
        place: Where it lies.
        build: Makes the content; called only when there is need. The same recipe must give the same
            bytes.
        recipe: What it is made of.
        rank: This process's place among those that do the same; detected by default.
        force: Build and write it whatever is there.
        dry_run: Change nothing on disk.
        keep_stale: Leave a stale our file alone, with a warning, unless forced.
        timeout_s: How long another rank waits; see `wait_for`.

    Raises:
        ArtifactError: It could not be written, a foreign or edited file is in the way
            (`OverwriteRefusedError`), or the main rank did not write it in time.
    """
    rank = Rank.detect() if rank is None else rank
    with main_rank_notices(rank):
        writable = is_writable(place.path.parent)
        if rank.is_main and writable and not dry_run:
            with folder_lock(place.path.parent):
                heal(place)
        found = inspect(place, recipe)
        refuse_other_mixture(found, recipe)
        if found.content is not None and not force and (found.fresh or _kept(found, keep_stale)):
            return Artifact(found.content, _left_alone(place, found))
        if place.chosen and not writable and not dry_run:
            raise not_writable(place.path)
        if rank.is_main:
            return _make(place, build, recipe, found, force=force, dry_run=dry_run)
        if writable and not dry_run:
            return wait_until_fresh(place, recipe, timeout_s=timeout_s)
        status: Status = "would write" if dry_run else "not persisted"
        return Artifact(build(), Outcome(status, place.path, found.state, changes=found.changes))


def wait_until_fresh(place: Place, recipe: Recipe, *, timeout_s: float | None = None) -> Artifact:
    """Return the artifact once the main rank has written it: its files alone decide, no signal.

    Raises:
        ArtifactError: It was not there within the limit.
    """

    def ready() -> Artifact | None:
        found = inspect(place, recipe)
        if found.content is None or not found.fresh:
            return None
        return Artifact(found.content, Outcome("up to date", found.path, found.state))

    return wait_for(ready, what=str(place.path), timeout_s=timeout_s)


def _make(
    place: Place,
    build: Callable[[], bytes],
    recipe: Recipe,
    found: Inspection,
    *,
    force: bool,
    dry_run: bool,
) -> Artifact:
    if found.state is State.STALE:
        _say_stale(place, found, "it is recomputed")
    content = build()
    return Artifact(content, publish(place, content, recipe, force=force, dry_run=dry_run))


def _kept(found: Inspection, keep_stale: bool) -> bool:
    return keep_stale and found.state in (State.STALE, State.REPARAMETRIZED)


def _left_alone(place: Place, found: Inspection) -> Outcome:
    if found.fresh:
        return Outcome("up to date", found.path, found.state)
    _say_stale(place, found, "it is used as it is; --force makes it again")
    return Outcome("kept", found.path, found.state, changes=found.changes)


def _say_stale(place: Place, found: Inspection, what_now: str) -> None:
    notices.warn(
        "stale_artifact",
        f"{found.path} is stale ({', '.join(found.changes)}): {what_now}",
        dataset=place.dataset,
        artifact=place.name,
        changes=list(found.changes),
    )
