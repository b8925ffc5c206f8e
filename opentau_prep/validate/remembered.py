"""Reports of what has not changed since: kept in the user's cache, keyed by all that was read.

The key holds size, times and inode of every file below the datasets, the mixture's folder and the
tokenizer, the options, and the tool itself. As in git's index, nothing is remembered of files that
changed in the last two seconds: they could change again within one tick of the clock.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import opentau_prep
from opentau_prep.artifacts.atomic import write_atomic
from opentau_prep.artifacts.fingerprint import cache_dir
from opentau_prep.artifacts.place import safe_folder_name
from opentau_prep.errors import ArtifactError, PrepError
from opentau_prep.storage import is_remote
from opentau_prep.storage.look import file_stat, folder_names, looking_anew, real_path
from opentau_prep.validate.findings import Finding

if TYPE_CHECKING:
    from opentau_prep.config.salvage import Salvage
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedMixture
    from opentau_prep.validate.view import CheckOptions, DatasetView

__all__ = ["Memory"]

_TICK_NS = 2_000_000_000
_PACKAGES = ("numpy", "pyarrow", "orjson")


class Memory:
    """What is remembered of one way to call `validate`.

    Attributes:
        usable: Whether the report depends on files alone: all datasets were found, in folders.
    """

    def __init__(
        self,
        subject: Salvage,
        resolved: ResolvedMixture | None,
        views: Sequence[DatasetView],
        codes: Sequence[str],
        options: CheckOptions,
        context: RunContext,
    ) -> None:
        roots = [view.dataset.root for view in views]
        lost = resolved is None or len(resolved.faults) > len(resolved.broken)
        folder = cache_dir()
        main = context.rank is None or context.rank.is_main
        self.usable = main and folder is not None and not lost and not any(map(is_remote, roots))
        mixture = None if resolved is None else resolved.mixture
        self._folders = [Path(root) for root in roots]
        self._files = [] if mixture is None else [*mixture.files]
        if context.artifact_root is not None:
            names = (safe_folder_name(view.name) for view in views)
            self._folders += [context.artifact_root / name for name in names]
        if mixture is not None and subject.path is not None:
            self._folders.append(context.prep_path(mixture, "validation").parent)
        if options.tokenizer is not None:
            self._folders.append(options.tokenizer)
        asked = (
            [os.path.abspath(path) for path in (*self._folders, *self._files)],
            [[(entry.index, entry.name) for entry in view.named_by] for view in views],
            None if mixture is None else mixture.sha256,
            subject.faults,
            codes,
            repr(options),
            str(context.shard),
            _places(context),
        )
        self._asked = hashlib.sha256(repr(asked).encode("utf-8", "backslashreplace")).hexdigest()
        self._file = None if folder is None else folder / "validate" / f"{self._asked[:24]}.json"
        self._dry = context.dry_run
        self._newest = 0
        self._start_ns = time.time_ns()
        self._key = self._now() if self.usable else ""

    def recall(self) -> list[Finding] | None:
        """Return the findings of the last time; None when anything has changed since."""
        if not self.usable or self._file is None:
            return None
        try:
            known = json.loads(self._file.read_bytes())
            if known["key"] != self._key:
                return None
            return [Finding.from_json(each, each["dataset"]) for each in known["findings"]]
        except (OSError, ValueError, TypeError, KeyError, PrepError):
            return None  # none, torn, or of another version

    def keep(self, findings: Sequence[Finding]) -> None:
        """Remember the findings, unless a file changed while they were found, or just before."""
        if not self.usable or self._file is None or self._dry:
            return
        with looking_anew():  # what this run saw first may be older than what it read
            unchanged = self._now() == self._key
        if self._newest > self._start_ns - _TICK_NS or not unchanged:
            return
        content = {"key": self._key, "findings": [finding.as_json() for finding in findings]}
        try:
            write_atomic(self._file, json.dumps(content).encode("utf-8", "surrogatepass"))
        except (ArtifactError, ValueError):
            return  # without it everything still works, only slower

    def _now(self) -> str:
        """Return the key of everything as it is, and note the newest time of change."""
        digest = hashlib.sha256(f"{sys.version} {opentau_prep.__version__} {self._asked}".encode())
        self._newest = 0
        specs = [find_spec(name) for name in _PACKAGES]
        packages = [spec.origin for spec in specs if spec is not None and spec.origin]
        files = (*packages, *map(os.fspath, self._files))
        tool = os.path.dirname(opentau_prep.__file__)
        folders = (tool, *map(os.fspath, self._folders))
        for path in (*files, *(file for folder in folders for file in _files_below(folder, set()))):
            try:
                found = file_stat(path)
            except OSError:
                found = None
            if found is None:
                digest.update(f"{path}\0gone\n".encode("utf-8", "surrogateescape"))
                continue
            stamp = found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
            digest.update(f"{path}\0{stamp}\n".encode("utf-8", "surrogateescape"))
            if path not in packages and not path.startswith(tool):
                self._newest = max(self._newest, found.st_mtime_ns, found.st_ctime_ns)
        for folder in self._folders:  # what Git LFS can fetch is advised in a checkout only
            within = Path(real_path(folder))
            in_git = any(file_stat(parent / ".git") for parent in (within, *within.parents))
            digest.update(b"git" if in_git else b"no git")
        return digest.hexdigest()


def _places(context: RunContext) -> list[str]:
    return [
        str(each and os.path.abspath(each)) for each in (context.artifact_root, context.prep_dir)
    ]


def _files_below(folder: str, linked: set[str]) -> Iterator[str]:
    """Yield all files below a folder in a fixed order, through links to folders, each once."""
    for name, is_file in sorted(folder_names(folder).items()):
        path = f"{folder}/{name}"
        if is_file is None and os.path.isdir(path):
            real = os.path.realpath(path)
            is_file = real in linked
            linked.add(real)
        if is_file is False:
            if name != "__pycache__":
                yield from _files_below(path, linked)
        else:
            yield path
