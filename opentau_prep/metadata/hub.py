"""Fetching a dataset's `meta/` and `data/` from the Hugging Face hub; never its videos."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from opentau_prep.errors import MetadataError, PrepError
from opentau_prep.extras import optional_package

__all__ = ["download"]


def download(repo_id: str, revision: str | None, *, frames: bool) -> Path:
    """Fetch what is not in the hub's cache yet, and return the snapshot's folder there.

    Args:
        repo_id: The dataset on the hub.
        revision: Branch, tag or commit; `main` by default.
        frames: Whether `data/` is fetched as well as `meta/`.

    Raises:
        EngineError: The package `huggingface_hub` is not installed.
        MetadataError: The hub cannot be reached, or has no such dataset, revision or permission.
    """
    need = partial(optional_package, extra="hub", what="--download", where=repo_id)
    hub, errors = need("huggingface_hub"), need("huggingface_hub.errors")
    # Transport errors are those of the HTTP library that this version of the package uses: the
    # bases of its own error.
    failures = (*errors.HfHubHTTPError.__bases__, errors.EntryNotFoundError, OSError, ValueError)
    patterns = ["meta/*", "data/*"] if frames else ["meta/*"]
    with _quiet_unless_terminal(importlib.import_module("huggingface_hub.utils")):
        try:
            path = hub.snapshot_download(
                repo_id, repo_type="dataset", revision=revision, allow_patterns=patterns
            )
        except failures as error:
            raise _explained(error, errors, repo_id, revision or "main") from error
    if not (Path(path) / "meta/info.json").is_file():
        raise MetadataError(
            "the hub's dataset has no meta/info.json",
            where=repo_id,
            hint="It is no LeRobot dataset, or an older one: convert it.",
        )
    return Path(path)


def _explained(error: BaseException, errors: Any, repo_id: str, revision: str) -> PrepError:
    causes = [error, error.__cause__, error.__context__]

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if caused_by(errors.RevisionNotFoundError):
        found, hint = f"the hub has no revision {revision!r} of it", "Correct `revision`."
    elif caused_by(errors.GatedRepoError):
        found, hint = "access to it is restricted", "Ask for access on its page, then log in."
    elif caused_by(errors.RepositoryNotFoundError):
        found, hint = "the hub has no such dataset, or it is private", "Check the name; log in."
    elif caused_by(errors.OfflineModeIsEnabled):
        found, hint = "the hub is switched off (HF_HUB_OFFLINE)", "Unset HF_HUB_OFFLINE."
    elif isinstance(error, errors.LocalEntryNotFoundError):
        found, hint = "the hub cannot be reached", "Check the network, then run it again."
    else:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        found, hint = f"the download failed ({reason})", "Check the network, then run it again."
    return MetadataError(found, where=repo_id, hint=hint)


@contextlib.contextmanager
def _quiet_unless_terminal(utils: Any) -> Iterator[None]:
    """Keep the package's own progress bars out of logs."""
    if sys.stderr.isatty() or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()
