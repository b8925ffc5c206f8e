"""Look at an artifact, and publish one: freshness, provenance, and nobody's file lost.

An artifact is a file or a folder of files; a folder's content is its manifest (`folders`).

An artifact and its provenance are written as one step (`atomic.write_all_atomic`): both are
complete on disk before the artifact takes its place, and the provenance follows. A process killed
between the two leaves the finished provenance as a temp file, and `heal` puts it in place on the
next run.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from opentau_prep import notices
from opentau_prep.artifacts import batches
from opentau_prep.artifacts.atomic import (
    NotWritableError,
    folder_lock,
    is_writable,
    make_folder,
    not_writable,
    write_all_atomic,
    write_atomic,
)
from opentau_prep.artifacts.folders import manifest_at, manifest_of, replace_folder
from opentau_prep.artifacts.leftovers import may_hold_leftovers, sweep
from opentau_prep.artifacts.place import Location, Place
from opentau_prep.artifacts.provenance import (
    Provenance,
    Recipe,
    describe_changes,
    record_of,
    same_json,
    sha256_of,
)
from opentau_prep.errors import ArtifactError
from opentau_prep.storage.look import file_bytes, refresh

__all__ = [
    "Inspection",
    "Outcome",
    "OverwriteRefusedError",
    "State",
    "Status",
    "heal",
    "inspect",
    "judge",
    "needs_healing",
    "publish",
    "recorded",
    "refuse_other_mixture",
]

Status = Literal["written", "up to date", "would write", "not persisted", "kept"]


class State(enum.Enum):
    """What is known of a file that is, or is not, at an artifact's place."""

    MISSING = "missing"
    FRESH = "fresh"
    STALE = "stale"
    REPARAMETRIZED = "made with other parameters"
    EDITED = "edited since it was written"
    FOREIGN = "not written by this tool"
    OTHER_MIXTURE = "the output of another mixture"


@dataclass(frozen=True)
class Inspection:
    """An artifact as it was found.

    Attributes:
        state: See `State`.
        path: Where it was found, or would be written.
        content: Its bytes, of a folder its manifest; None when it is missing or empty.
        changes: In words, what differs from what it was made of; empty unless stale or
            reparametrized.
        provenance: Its provenance, if there is a readable one.
    """

    state: State
    path: Location
    content: bytes | None = None
    changes: tuple[str, ...] = ()
    provenance: Provenance | None = None

    @property
    def fresh(self) -> bool:
        """Whether it is ours, unedited, and made of the same inputs with the same parameters."""
        return self.state is State.FRESH


@dataclass(frozen=True)
class Outcome:
    """What became of a file that was to be published.

    Attributes:
        status: `"written"`; `"up to date"` (it held these bytes already; a provenance that lacked
            or was of other inputs was written); `"would write"` (dry run); `"not persisted"` (the
            place cannot be written); `"kept"` (left alone).
        path: The artifact.
        backup: Where the file that was there is kept, if it was.
        before: The state in which the place was found.
        changes: In words, what had changed since the file that was there was made.
    """

    status: Status
    path: Location
    before: State
    backup: Path | None = None
    changes: tuple[str, ...] = ()


class OverwriteRefusedError(ArtifactError):
    """A file is in the way that this toolkit did not write, or that was edited since.

    Attributes:
        inspection: The file that is there.
        content: The bytes that would have replaced it, for showing the difference.
    """

    def __init__(self, inspection: Inspection, content: bytes) -> None:
        super().__init__(
            f"{inspection.state.value}, and unlike what would be written; it was left alone",
            where=str(inspection.path),
            hint="Use --force to replace it; the old file is kept as a backup.",
        )
        self.inspection = inspection
        self.content = content

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.inspection, self.content))


def refuse_other_mixture(found: Inspection, recipe: Recipe) -> None:
    """Raise `ArtifactError` when an output of another mixture would be replaced, forced or not.

    A checkpoint may depend on it, and nobody who names this mixture means that one.
    """
    if found.state is State.OTHER_MIXTURE and found.provenance is not None:
        raise ArtifactError(
            f"is the output of mixture {found.provenance.mixture_id}, not of {recipe.mixture_id};"
            " it was left alone",
            where=str(found.path),
            hint="Name another place with --out, --out-dir or --prep-dir, or move it away.",
        )


def inspect(place: Place, recipe: Recipe) -> Inspection:
    """Return the state of an artifact against what it would be made of now; nothing is changed.

    Args:
        place: Where it lies; in a place with a fallback, the first that holds it counts.
        recipe: What it would be made of.

    Raises:
        ArtifactError: A file is there but cannot be read.
    """
    found = _inspect_at(place, place.path, place.provenance_path, recipe)
    if found.state is State.MISSING and place.fallback is not None:
        inside = _inspect_at(place, *place.fallback, recipe)
        return inside if inside.state is not State.MISSING else found
    return found


def recorded(place: Place) -> Provenance | None:
    """Return the provenance of an artifact that is there, if there is a readable one.

    Raises:
        ArtifactError: A file is there but cannot be read.
    """
    inside = () if place.fallback is None else (place.fallback,)
    for path, provenance_path in ((place.path, place.provenance_path), *inside):
        content = manifest_at(place.path) if place.is_folder else _read(path)
        if content is not None:
            return _provenance_at(provenance_path, place.name)
    return None


def judge(
    path: Location,
    content: bytes,
    provenance: Provenance | None,
    recipe: Recipe,
    *,
    schema_version: int,
) -> Inspection:
    """Return the state of an artifact that is there, from its bytes and its provenance alone.

    Args:
        path: Where it is.
        content: The bytes that its provenance has the hash of.
        provenance: Its provenance, None when there is no readable one.
        recipe: What it would be made of now.
        schema_version: The version of its layout now.
    """
    if provenance is None:
        return Inspection(State.FOREIGN, path, content)
    if provenance.is_of_another(recipe):
        return Inspection(State.OTHER_MIXTURE, path, content, provenance=provenance)
    if provenance.sha256 != sha256_of(content):
        return Inspection(State.EDITED, path, content, provenance=provenance)
    changes = recipe.changes_since(provenance)
    if provenance.schema_version != schema_version:
        changes.append(f"file layout {provenance.schema_version} -> {schema_version}")
    state = State.STALE if changes else State.FRESH
    if not same_json(provenance.parameters, recipe.parameters):
        state = State.STALE if changes else State.REPARAMETRIZED
        changes += describe_changes(provenance.parameters, recipe.parameters)
    return Inspection(state, path, content, tuple(changes), provenance)


def publish(
    place: Place,
    content: bytes | Mapping[str, bytes],
    recipe: Recipe,
    *,
    force: bool = False,
    dry_run: bool = False,
    extends: bool = False,
) -> Outcome:
    """Write an artifact and its provenance, as one step, if that is called for and allowed.

    Our own file that nobody has edited is replaced. A foreign or edited one is replaced only with
    `force` or `extends`, and then stays as `<name>.bak-<hash>`, as does any file that `force`
    replaces. Our folder stays as the version `<name>-<hash>`, since a checkpoint may depend on it;
    a foreign folder that holds folders (a dataset, a home) is never replaced: it was named by
    mistake.

    Args:
        place: Where.
        content: The artifact's bytes; of a folder, file name -> content.
        recipe: What it was made of.
        force: Replace whatever is there.
        dry_run: Change nothing, only say what would happen.
        extends: The caller vouches that `content` only adds to what is there. Then no force is
            needed, and where the old bytes are the beginning of the new ones no old file is kept.

    Raises:
        OverwriteRefusedError: A foreign or edited file with other content is there.
        ArtifactError: The disk is full, or another fault; or a place that the user named cannot be
            written. A dataset that cannot be written is no error but a `not_persisted` notice.
    """
    options = _Options(force, dry_run, extends)
    if dry_run:
        return _publish_locked(place, content, recipe, options)
    if not force and not needs_healing(place):  # nothing to lock a folder for
        found = _inspect_at(place, place.path, place.provenance_path, recipe)
        wanted = content if isinstance(content, bytes) else manifest_of(content)
        if found.fresh and found.content == wanted:
            return Outcome("up to date", place.path, found.state)
    try:
        make_folder(place.path.parent)
        with folder_lock(place.path.parent):
            heal(place)
            refresh(place.path, place.provenance_path)
            return _publish_locked(place, content, recipe, options)
    except NotWritableError as error:
        if place.chosen:
            raise
        batches.give_up(error)
        _say_not_persisted(place, error)
        found = inspect(place, recipe)
        return Outcome("not persisted", place.path, found.state, changes=found.changes)


def heal(place: Place) -> None:
    """Finish or undo what a killed run left at a place; what a live process is writing is let be.

    A provenance that was complete but not yet in place is put there when it describes the artifact.
    """
    sweep(place.path.parent)
    if not place.is_folder:
        sweep(place.provenance_path.parent)


def needs_healing(place: Place) -> bool:
    """Return whether `heal` could find something to do, by listings that a run makes anyway."""
    folders = {place.path.parent} if place.is_folder else _folders_of(place)
    return any(map(may_hold_leftovers, folders))


def _folders_of(place: Place) -> set[Path]:
    return {place.path.parent, place.provenance_path.parent}


@dataclass(frozen=True)
class _Options:
    force: bool
    dry_run: bool
    extends: bool


def _publish_locked(
    place: Place, content: bytes | Mapping[str, bytes], recipe: Recipe, options: _Options
) -> Outcome:
    found = _inspect_at(place, place.path, place.provenance_path, recipe)
    wanted = content if isinstance(content, bytes) else manifest_of(content)
    same = found.content == wanted
    if same and found.fresh:
        return Outcome("up to date", place.path, found.state)
    if not options.dry_run and not is_writable(place.path.parent):
        raise not_writable(place.path)
    refuse_other_mixture(found, recipe)
    theirs = found.state in (State.FOREIGN, State.EDITED)
    if place.is_folder and found.state is State.FOREIGN:
        _check_holds_no_folders(place.path)
    if theirs and not same and not (options.force or options.extends):
        raise OverwriteRefusedError(found, wanted)
    if options.dry_run:
        return Outcome("would write", place.path, found.state, changes=found.changes)
    record = record_of(place.name, place.schema_version, wanted, recipe).to_bytes()
    if same:
        write_atomic(place.provenance_path, record)
        return Outcome("up to date", place.path, found.state, changes=found.changes)
    if not isinstance(content, bytes):
        files = {**content, place.provenance_path.name: record}
        kept = replace_folder(place.path, files, found.content, ours=not theirs)
        return Outcome("written", place.path, found.state, kept, found.changes)
    backup = _backup_of(place, found, content, options) if theirs or options.force else None
    write_all_atomic(
        [(place.path, content), (place.provenance_path, record)],
        keep={} if backup is None else {place.path: backup},
    )
    return Outcome("written", place.path, found.state, backup, found.changes)


def _check_holds_no_folders(path: Path) -> None:
    if any(child.is_dir() for child in path.iterdir()):
        raise ArtifactError(
            "holds folders that were not written by this tool; it is left alone",
            where=str(path),
            hint="Name another folder.",
        )


def _backup_of(place: Place, found: Inspection, content: bytes, options: _Options) -> Path | None:
    """Return the name under which the old file is kept: one that is free, or that holds it."""
    old = found.content
    if old is None or (options.extends and content.startswith(old)):
        return None
    digest = sha256_of(old)
    for length in (8, len(digest)):
        backup = place.path.with_name(f"{place.path.name}.bak-{digest[:length]}")
        if _read(backup) in (None, old):
            break
    return backup


def _inspect_at(
    place: Place,
    path: Location,
    provenance_path: Location,
    recipe: Recipe,
) -> Inspection:
    content = manifest_at(place.path) if place.is_folder else _read(path)
    if content is None:
        return Inspection(State.MISSING, path)
    provenance = _provenance_at(provenance_path, place.name)
    return judge(path, content, provenance, recipe, schema_version=place.schema_version)


def _provenance_at(path: Location, artifact: str) -> Provenance | None:
    # An unreadable provenance is no provenance: its artifact counts as foreign.
    try:
        data = _read(path)
    except ArtifactError:
        return None
    found = None if data is None else Provenance.from_bytes(data)
    return found if found is not None and found.artifact == artifact else None


def _read(path: Location) -> bytes | None:
    try:
        return file_bytes(path) if isinstance(path, Path) else path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ArtifactError(f"cannot be read ({reason})", where=str(path)) from error


def _say_not_persisted(place: Place, error: NotWritableError) -> None:
    # The same words for every artifact of a root, so that several give one warning.
    notices.warn(
        "not_persisted",
        f"{place.root} cannot be written: results are returned but not persisted; "
        "--artifact-root DIR puts them elsewhere, --no-persist accepts it",
        dataset=place.dataset,
        root=str(place.root),
        reason=error.message,
    )
