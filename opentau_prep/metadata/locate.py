"""Where a dataset is: the path that was given, local caches, and, when asked, the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opentau_prep.errors import ConfigError, MetadataError
from opentau_prep.metadata.info import INFO
from opentau_prep.storage.look import file_stat
from opentau_prep.storage.urls import check_url, is_remote
from opentau_prep.text import printable

if TYPE_CHECKING:
    from opentau_prep.context import RunContext

__all__ = ["LocateOptions", "check_repo_id", "hub_snapshots", "locate_dataset"]

_USUAL_HOME = "~/.cache/huggingface"
_NEVER_IN_ID = r"[\\:\x00-\x1f\x7f\ud800-\udfff]|\A~"


@dataclass(frozen=True)
class LocateOptions:
    """How far the search for a dataset goes.

    Attributes:
        download: Fetch `meta/` (and `data/` when frames are needed) from the hub when the dataset
            is nowhere on this machine.
        frames: Whether `data/` will be read.
        absolute: Whether the path must mean the same in any working directory.
        tolerant: Whether a folder that is given as a root and has no info.json is found too: a
            dataset, and a broken one.
    """

    download: bool = False
    frames: bool = False
    absolute: bool = False
    tolerant: bool = False

    @classmethod
    def of_run(cls, context: RunContext, *, frames: bool, tolerant: bool = False) -> LocateOptions:
        """Return the options of a run: workers of a cluster have working directories of their own.

        Args:
            context: The run.
            frames: Whether `data/` will be read.
            tolerant: Whether folders without info.json are found too.
        """
        absolute = context.engine_address is not None
        return cls(context.download, frames, absolute=absolute, tolerant=tolerant)


def locate_dataset(
    *,
    repo_id: str | None,
    root: str | None,
    revision: str | None = None,
    json_dir: str | os.PathLike[str] | None = None,
    options: LocateOptions = LocateOptions(),
    environ: Mapping[str, str] | None = None,
) -> str:
    """Return the folder of a dataset, or the URL of one that lies in a store.

    A `root` that is a URL is returned unless it cannot be one; nothing is asked of its store.
    Otherwise tried in this order: `root` from the working directory, `root` from the folder of the
    JSON file that names it; without a root `$HF_OPENTAU_HOME/<repo_id>`,
    `$HF_LEROBOT_HOME/<repo_id>`, the Hugging Face hub cache, and with `options.download` the hub.

    Raises:
        ConfigError: `repo_id` would leave a cache folder, or `root` is a URL that is not usable.
        MetadataError: Found nowhere; the message lists every place. Or the hub does not give it.
        EngineError: `options.download` needs a package that is not installed.
    """
    environ = os.environ if environ is None else environ
    if root is not None and is_remote(root):
        return check_url(root)
    if root is not None and "://" in root:
        return root
    if repo_id is not None and root is None:
        check_repo_id(repo_id)
    places: Iterable[str]
    if root is None:
        places = _usual_places(repo_id, revision, environ)
    else:
        places = _given_places(root, json_dir)
    tried: list[str] = []
    for place in places:
        if _is_there(f"{place}/{INFO}"):
            found = os.path.abspath(place) if options.absolute else place
            return _completed(found, repo_id, revision, options)
        tried.append(place)
    bare = _bare_folder(tried) if options.tolerant and root is not None else None
    if bare is not None:
        return os.path.abspath(bare) if options.absolute else bare
    if options.download and repo_id is not None and root is None:
        from opentau_prep.metadata.hub import download

        return str(download(repo_id, revision, frames=options.frames))
    places = ", ".join(dict.fromkeys(printable(str(Path(p))) for p in tried))
    hint = "Correct the path." if root is not None else "Give its `root`, or pass --download."
    raise MetadataError(
        f"dataset not found; there is no {INFO} in {places}",
        where=printable(str(root if root is not None else repo_id)),
        hint=hint,
    )


def _bare_folder(places: Iterable[str]) -> str | None:
    """Return the first place that is a folder, though it has no info.json."""
    return next((place for place in places if os.path.isdir(place)), None)


def _is_there(path: str) -> bool:
    # What is no file is decided by whoever opens it.
    try:
        return file_stat(path) is not None
    except (OSError, ValueError):  # forbidden, or a name that no file can have
        return False


def _completed(
    place: str, repo_id: str | None, revision: str | None, options: LocateOptions
) -> str:
    """Return a place; a snapshot of the hub only after what it may still lack was fetched."""
    if not (options.download and options.frames) or repo_id is None:
        return place
    snapshots = Path(place).parent
    if snapshots.name != "snapshots" or not snapshots.parent.name.startswith("datasets--"):
        return place
    from opentau_prep.metadata.hub import download

    return str(download(repo_id, revision, frames=True))


def check_repo_id(repo_id: str) -> None:
    """Raise `ConfigError` when a hub id would leave the cache folder it is looked for in."""
    parts = repo_id.split("/")
    if any(p in ("", ".", "..") for p in parts) or re.search(_NEVER_IN_ID, repo_id):
        raise ConfigError(
            f"repo_id {repo_id!r} is not a hub id",
            hint="Expected `owner/name`; give a path as `root`.",
        )


def _given_places(root: str, json_dir: str | os.PathLike[str] | None) -> Iterable[str]:
    # As strings, here as below: a Path costs as much as looking whether the file is there.
    given = os.path.expanduser(root) or "."
    if json_dir is None or os.path.isabs(given):
        return (given,)
    return (given, os.path.join(json_dir, given))


def _usual_places(
    repo_id: str | None, revision: str | None, environ: Mapping[str, str]
) -> Iterator[str]:
    if repo_id is None:
        return
    usual, home = _USUAL_HOME, _hub_home(environ)
    for variable, name in (("HF_OPENTAU_HOME", "opentau"), ("HF_LEROBOT_HOME", "lerobot")):
        given_home = environ.get(variable)
        # The trainers' default moves with HF_HOME; what was downloaded before that stays behind.
        folders = [given_home] if given_home else [f"{home}/{name}", f"{usual}/{name}"]
        yield from (f"{os.path.expanduser(folder)}/{repo_id}" for folder in folders)
    yield from map(str, hub_snapshots("datasets", repo_id, revision, environ))


def _hub_home(environ: Mapping[str, str]) -> str:
    cache = environ.get("XDG_CACHE_HOME")
    return environ.get("HF_HOME") or (os.path.join(cache, "huggingface") if cache else _USUAL_HOME)


def hub_snapshots(
    kind: str, repo_id: str, revision: str | None, environ: Mapping[str, str]
) -> Iterator[Path]:
    """Yield where the hub's cache has a repository of a kind: `datasets` or `models`.

    Args:
        kind: The kind.
        repo_id: The hub id.
        revision: A branch, tag or commit; None means `main`.
        environ: The environment, which says where the cache is.
    """
    hub = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    cache = Path(os.path.expanduser(hub or f"{_hub_home(environ)}/hub"))
    yield from _snapshots(cache / f"{kind}--{repo_id.replace('/', '--')}", revision)


def _snapshots(folder: Path, revision: str | None) -> Iterator[Path]:
    """Yield the snapshot that a revision (by default `main`) means in a hub cache folder."""
    name = revision or "main"
    if not re.fullmatch(r"[\w./-]+", name, re.ASCII) or ".." in name or name.startswith("/"):
        return
    try:
        commit = (folder / "refs" / name).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        commit = name
    if re.fullmatch(r"[\w.-]+", commit, re.ASCII) and commit not in (".", ".."):
        yield folder / "snapshots" / commit
