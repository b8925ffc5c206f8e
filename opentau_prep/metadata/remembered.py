"""What is remembered of a mixture as a whole: for as long as none of its files changes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from opentau_prep.artifacts.catalog import MIXTURE_OUTPUTS
from opentau_prep.artifacts.memory import Memory
from opentau_prep.artifacts.place import safe_folder_name
from opentau_prep.errors import PrepError
from opentau_prep.metadata.resolve import located_roots
from opentau_prep.storage import is_remote

if TYPE_CHECKING:
    from opentau_prep.config.schema import Mixture
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.locate import LocateOptions

__all__ = ["mixture_memory"]

# Written from what the others hold, and read by nobody here.
_SHOWN_ONLY = ("report",)


def mixture_memory(
    kind: str,
    mixture: Mixture,
    context: RunContext,
    options: LocateOptions,
    asked: object,
    others: Iterable[Path] = (),
    *,
    active: bool = True,
) -> Memory:
    """Return what is remembered of a question about a mixture; nothing where a dataset is lost.

    Args:
        kind: Of the question; see `Memory`.
        mixture: The mixture.
        context: Where artifacts are. A rank that is not the main one remembers nothing.
        options: Where datasets are looked for.
        asked: What else decides the answer.
        others: Files and folders that are read, but for the mixture's own.
        active: Whether anything is remembered at all.
    """
    try:
        roots = located_roots(mixture, options)
    except PrepError:
        roots = []
    folders = [root if is_remote(root) else os.path.abspath(root) for root in roots]
    if context.artifact_root is not None:
        ids = {str(config.repo_id) for config in mixture.datasets} | {*mixture.dataset_names}
        others = [
            *others,
            *(context.artifact_root / safe_folder_name(each) for each in sorted(ids)),
        ]
    for output in MIXTURE_OUTPUTS:
        if output not in _SHOWN_ONLY:
            path = context.prep_path(mixture, output)
            others = [*others, path, path.with_suffix(".prep.json")]
    folders += [os.path.abspath(path) for path in (*mixture.files, *others)]
    spelled = (context.artifact_root, context.prep_dir, context.engine, context.engine_address)
    named = (mixture.path, mixture.sha256, mixture.dataset_names, roots, options)
    active = active and bool(roots) and context.this_rank.is_main and not context.download
    return Memory(kind, (asked, *named, *spelled), folders, roots, active=active)
