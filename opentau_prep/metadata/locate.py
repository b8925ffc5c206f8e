"""Where a dataset is: the path that was given, local caches, and, when asked, the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from opentau_prep.errors import ConfigError, EngineError, MetadataError
from opentau_prep.metadata.info import INFO

__all__ = ["LocateOptions", "check_repo_id", "locate_dataset"]


@dataclass(frozen=True)
class LocateOptions:
    """How far the search for a dataset goes.

    Attributes:
        download: Fetch `meta/` (and `data/` when frames are needed) from the hub when the dataset
            is nowhere on this machine.
        frames: Whether `data/` will be read.
    """

    download: bool = False
    frames: bool = False


def locate_dataset(
    *,
    repo_id: str | None,
    root: str | None,
    revision: str | None = None,
    json_dir: Path | None = None,
    options: LocateOptions = LocateOptions(),
    environ: Mapping[str, str] | None = None,
) -> Path | str:
    """Return the folder of a dataset.

    Tried in this order: `root` from the working directory, `root` from the folder of the JSON file
    that names it; without a root `$HF_OPENTAU_HOME/<repo_id>`, `$HF_LEROBOT_HOME/<repo_id>`, the
    Hugging Face hub cache, and with `options.download` the hub.

    Raises:
        ConfigError: `repo_id` would leave a cache folder.
        MetadataError: Found nowhere; the message lists every place.
    """
    environ = os.environ if environ is None else environ
    if root is not None and "://" in root:
        return root
    if repo_id is not None and root is None:
        check_repo_id(repo_id)
    tried: list[Path] = []
    for place in _places(repo_id, root, revision, json_dir, environ):
        if (place / INFO).is_file():
            return place
        tried.append(place)
    if options.download and repo_id is not None and root is None:
        return _download(repo_id, revision, options)
    name = root if root is not None else repo_id
    lines = "".join(f"\n  {place}" for place in dict.fromkeys(tried))
    hint = "Correct the path." if root is not None else "Give its `root`, or pass --download."
    raise MetadataError(
        f"dataset not found; no {INFO} in any of:{lines}\n", where=str(name), hint=hint
    )


def check_repo_id(repo_id: str) -> None:
    """Raise `ConfigError` when a hub id would leave the cache folder it is looked for in."""
    parts = repo_id.split("/")
    if any(p in ("", ".", "..") for p in parts) or re.search(r"[\\:\x00-\x1f]", repo_id):
        raise ConfigError(
            f"repo_id {repo_id!r} is not a hub id",
            hint="Expected `owner/name`; give a path as `root`.",
        )


def _places(
    repo_id: str | None,
    root: str | None,
    revision: str | None,
    json_dir: Path | None,
    environ: Mapping[str, str],
) -> Iterator[Path]:
    if root is not None:
        given = Path(root).expanduser()
        yield given
        if json_dir is not None and not given.is_absolute():
            yield json_dir / given
        return
    if repo_id is None:
        return
    home = Path(environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    default = Path("~/.cache/huggingface").expanduser()
    yield Path(environ.get("HF_OPENTAU_HOME") or default / "opentau").expanduser() / repo_id
    yield Path(environ.get("HF_LEROBOT_HOME") or default / "lerobot").expanduser() / repo_id
    hub = Path(environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    folder = hub / f"datasets--{repo_id.replace('/', '--')}"
    yield from _snapshots(folder, revision)


def _snapshots(folder: Path, revision: str | None) -> Iterator[Path]:
    """Yield the snapshot that a revision (by default `main`) means in a hub cache folder."""
    name = revision or "main"
    if re.fullmatch(r"[\w./-]+", name) and ".." not in name:
        try:
            yield folder / "snapshots" / (folder / "refs" / name).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            yield folder / "snapshots" / name


def _download(repo_id: str, revision: str | None, options: LocateOptions) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise EngineError(
            "--download needs the package huggingface_hub",
            where=repo_id,
            hint="Install it: pip install 'opentau-prep[hub]'.",
        ) from error
    patterns = ["meta/**", "data/**"] if options.frames else ["meta/**"]
    try:
        path = snapshot_download(
            repo_id, repo_type="dataset", revision=revision, allow_patterns=patterns
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise MetadataError(
            f"cannot be downloaded from the hub ({reason})",
            where=repo_id,
            hint="Check the name, your token and the network.",
        ) from error
    return Path(path)
