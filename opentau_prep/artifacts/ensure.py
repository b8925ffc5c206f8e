"""The whole life of an artifact in one call: used while it is fresh, else made by one rank.

What every artifact shares is here: who writes, who waits, what a killed run left, `force` and dry
runs. An artifact says where it lies, what there is of it, and how it is made; what becomes of a
file that is there and differs is its own policy, in `make`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

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
    needs_healing,
    publish,
    refuse_other_mixture,
)

__all__ = ["Artifact", "File", "ensure", "ensure_file", "heal_places", "say_stale"]

T_co = TypeVar("T_co", covariant=True)


class Artifact(Protocol[T_co]):
    """A file, a folder, or several files that are written together."""

    @property
    def places(self) -> Sequence[Place]:
        """Where it lies; whether it can be written is asked of the first."""
        ...

    def finished(self) -> T_co | None:
        """Return what there is when nothing is left to be done, else None; reads no frames.

        For the ranks that do not write, that is what the main rank leaves behind.
        """
        ...

    def make(self) -> T_co:
        """Make it and write it, or decide to leave what is there."""
        ...


def ensure(
    artifact: Artifact[T_co],
    *,
    rank: Rank,
    force: bool = False,
    dry_run: bool = False,
    timeout_s: float | None = None,
) -> T_co:
    """Return an artifact as it should be: the one that is there, or a new one.

    The main rank makes and writes it; the others wait until `finished` returns it: its files alone
    decide, no signal. Where nothing can be written, and in a dry run, every rank makes it for
    itself.

    Args:
        artifact: The artifact.
        rank: This process's place among those that do the same.
        force: Make it whatever is there.
        dry_run: Change nothing on disk; `make` knows.
        timeout_s: How long another rank waits; see `wait_for`.

    Raises:
        ArtifactError: It could not be written, a foreign or edited file is in the way
            (`OverwriteRefusedError`), or the main rank did not write it in time.
    """
    first = artifact.places[0]
    folder = first.path.parent
    if not rank.is_main and not dry_run and (first.chosen or is_writable(folder)):
        return wait_for(artifact.finished, what=str(first.path), timeout_s=timeout_s)
    if rank.is_main and not dry_run:
        heal_places(artifact.places)
    found = None if force else artifact.finished()
    if found is not None:
        return found
    if first.chosen and not dry_run and not is_writable(folder):
        raise not_writable(first.path)
    return artifact.make()


def heal_places(places: Sequence[Place]) -> None:
    """Finish or undo what killed runs left at an artifact's places, as far as they can be written.

    Whoever judges an artifact before `ensure` does so first: a lost provenance makes it foreign.
    """
    for place in places:
        if needs_healing(place) and is_writable(places[0].path.parent):
            with folder_lock(place.path.parent):
                heal(place)


@dataclass(frozen=True)
class File:
    """A file's bytes, the same on every rank, and what became of it.

    Attributes:
        content: The bytes.
        outcome: What was done; see `Outcome`.
    """

    content: bytes
    outcome: Outcome


def ensure_file(
    place: Place,
    build: Callable[[], bytes],
    recipe: Recipe,
    *,
    rank: Rank | None = None,
    force: bool = False,
    dry_run: bool = False,
    timeout_s: float | None = None,
) -> File:
    """Return an up-to-date file: the one that is there, or a new one, which replaces a stale one.

    Args:
        place: Where it lies.
        build: Makes the content; called only when there is need. The same recipe must give the same
            bytes.
        recipe: What it is made of.
        rank: This process's place among those that do the same; detected by default.
        force: Build and write it whatever is there.
        dry_run: Change nothing on disk.
        timeout_s: How long another rank waits; see `wait_for`.

    Raises:
        ArtifactError: As `ensure`.
    """
    rank = Rank.detect() if rank is None else rank
    file = _Replaced(place, build, recipe, force, dry_run, rank.is_main)
    with main_rank_notices(rank):
        return ensure(file, rank=rank, force=force, dry_run=dry_run, timeout_s=timeout_s)


@dataclass(frozen=True)
class _Replaced:
    """A file whose stale version is replaced."""

    place: Place
    build: Callable[[], bytes]
    recipe: Recipe
    force: bool
    dry_run: bool
    is_main: bool

    @property
    def places(self) -> Sequence[Place]:
        return (self.place,)

    def finished(self) -> File | None:
        found = inspect(self.place, self.recipe)
        refuse_other_mixture(found, self.recipe)
        if found.content is None or not found.fresh:
            return None
        return File(found.content, Outcome("up to date", found.path, found.state))

    def make(self) -> File:
        found = inspect(self.place, self.recipe)
        if not self.is_main:  # which would write only to say the same
            status: Status = "would write" if self.dry_run else "not persisted"
            outcome = Outcome(status, self.place.path, found.state, changes=found.changes)
            return File(self.build(), outcome)
        refuse_other_mixture(found, self.recipe)  # before the work, not after it
        if found.state is State.STALE:
            say_stale(found, self.place, "it is recomputed")
        content = self.build()
        return File(
            content,
            publish(self.place, content, self.recipe, force=self.force, dry_run=self.dry_run),
        )


def say_stale(found: Inspection, place: Place, what_now: str) -> None:
    """Warn that an artifact is stale, and what becomes of it."""
    stale = "is stale" if found.state is State.STALE else "was made with other parameters"
    notices.warn(
        "stale_artifact",
        f"{found.path} {stale} ({', '.join(found.changes)}): {what_now}",
        dataset=place.dataset,
        artifact=place.name,
        changes=list(found.changes),
    )
