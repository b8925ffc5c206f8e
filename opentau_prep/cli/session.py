"""One run of one command: where its words go, and how it is carried out."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from opentau_prep.artifacts.rank import Rank
from opentau_prep.context import RunContext
from opentau_prep.errors import ConfigError
from opentau_prep.notices import Notice, notices_shown_by
from opentau_prep.shard import Shard
from opentau_prep.storage.urls import check_written
from opentau_prep.text import printable, printable_lines, several, without_secrets

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, Task

    from opentau_prep.cli.command import Result
    from opentau_prep.cli.options import CommonOptions

__all__ = ["SCHEMA_VERSION", "Session", "time_column"]

SCHEMA_VERSION = 1
"""Of every document that `--json` prints; a document may state one of its own."""
_SHOWN_PER_KIND = 2
_PROGRESS_WIDTH = 60  # of all that a line of progress shows but the name

PIPE_WIDTH = 10_000  # a file or a pipe has no width of its own: nothing is cut or wrapped there


def _raise_current() -> None:
    raise BrokenPipeError


def _for_workers(folder: Path | None, common: CommonOptions) -> Path | None:
    """Return a folder as workers can use it: a cluster's have working directories of their own."""
    if folder is not None:
        check_written(folder, "--artifact-root")  # which an absolute path could not tell
    return folder.absolute() if folder and common.engine_address is not None else folder


def _may_have_colours(stream: TextIO) -> bool:
    return stream.isatty() or bool({"FORCE_COLOR", "TTY_COMPATIBLE"} & os.environ.keys())


def _is_no_notice(record: logging.LogRecord) -> bool:
    return not hasattr(record, "notice")  # a session renders those itself


def time_column() -> ProgressColumn:
    """Return a column of the time left; until the first dataset is done, the time so far.

    A task has in `at` when it was updated last.
    """
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Clock(ProgressColumn):
        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            # Rich forgets what was done over 30 s ago; a dataset may take longer.
            shown, words = task.elapsed or 0.0, "so far"
            if task.completed and task.start_time is not None:
                each = (task.fields["at"] - task.start_time) / task.completed
                whole = each * (task.total or task.completed)
                shown, words = max(0.0, whole - shown), "left"
            minutes, seconds = divmod(round(shown), 60)
            hours, minutes = divmod(minutes, 60)
            clock = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
            return Text(f"{clock} {words}")

    return Clock()


class Session:
    """Consoles, notices, progress and the `RunContext` of a command.

    Results go to stdout; warnings, progress and logs to stderr, and only from the main rank. A
    JSON document is printed by every rank, since each was asked for one.
    """

    def __init__(self, command: str, common: CommonOptions) -> None:
        self.command = command
        self.common = common
        self.rank = Rank.detect()
        self._stack = contextlib.ExitStack()
        artifact_root = _for_workers(common.artifact_root, common)
        if common.no_persist:
            artifact_root = self._scratch()
        self.context = RunContext(
            workers=common.workers,
            engine=common.engine,
            engine_address=common.engine_address,
            force=common.force,
            dry_run=common.dry_run,
            keep_going=common.keep_going,
            artifact_root=artifact_root,
            prep_dir=common.prep_dir,
            download=common.download,
            # In a folder of its own, every rank is the one that writes.
            rank=replace(self.rank, is_main=True) if common.no_persist else self.rank,
            progress=self._on_progress,
        )
        self.notices: list[Notice] = []
        self._not_shown = 0
        self._progress: Progress | None = None
        self._tasks: dict[str, Any] = {}

    @cached_property
    def stderr(self) -> Console:
        """The console for everything that is not the result."""
        from opentau_prep.cli.console import SafeConsole

        # On a terminal messages are wrapped between words; elsewhere a message is one line.
        return SafeConsole(stderr=True, soft_wrap=not sys.stderr.isatty())

    def __enter__(self) -> Session:
        if self.common.verbose:
            from opentau_prep.cli.console import PlainFormatter

            logging.basicConfig(stream=sys.stderr)
            for handler in logging.getLogger().handlers:
                handler.setFormatter(PlainFormatter("%(name)s: %(message)s"))
                handler.addFilter(_is_no_notice)
            logging.getLogger("opentau_prep").setLevel(logging.DEBUG)
        # What libraries warn of through `warnings` (scikit-learn, NumPy) goes to the log: it is
        # shown with --verbose, and never between our own lines.
        logging.captureWarnings(True)
        self._stack.callback(logging.captureWarnings, False)
        self._stack.enter_context(notices_shown_by(self._on_notice))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop_progress()
        if self._not_shown and self.rank.speaks:
            self.stderr.print(
                f"and {several(self._not_shown, 'more warning')} like these; --verbose shows them"
            )
        self._stack.close()

    def _scratch(self) -> Path:
        """Return a folder for the datasets' artifacts that is gone after the command."""
        if self.common.artifact_root is not None:
            raise ConfigError("--no-persist and --artifact-root contradict each other")
        if self.common.engine_address is not None:
            raise ConfigError(
                "--no-persist writes to this machine only, and --engine-address is another",
                hint="Use --artifact-root DIR, and remove DIR afterwards.",
            )
        import tempfile

        folder = tempfile.TemporaryDirectory(prefix="opentau-prep-")
        return Path(self._stack.enter_context(folder))

    @property
    def not_persisted(self) -> bool:
        """Whether something that was to be written into a dataset could not be."""
        return any(notice.kind == "not_persisted" for notice in self.notices)

    def work_on(self, shard: str | None) -> None:
        """Work on one part of the datasets only: the value of `--shard`."""
        if shard is not None:
            self.context = dataclasses.replace(self.context, shard=Shard.parse(shard))

    def show(self, result: Result) -> None:
        """Print a result, as a document or as tables."""
        if self.common.json:
            sys.stdout.write(self.document(result.payload, self.notices))
            sys.stdout.flush()
        elif self.rank.speaks and not self.common.quiet:
            plain = getattr(result.render, "plain", None)
            if plain is not None and not _may_have_colours(sys.stdout):  # Rich is not imported
                sys.stdout.write(printable_lines(plain()) + "\n")
                sys.stdout.flush()
                return
            from opentau_prep.cli.console import SafeConsole

            width = None if sys.stdout.isatty() else PIPE_WIDTH
            console = SafeConsole(width=width)
            # Rich ends the process with code 1 when the reader has gone; `command` knows better.
            console.on_broken_pipe = _raise_current  # type: ignore[method-assign]
            result.render(console)
            sys.stdout.flush()

    def document(self, payload: Mapping[str, Any], warnings: Sequence[Notice]) -> str:
        """Return the command's JSON document."""
        from opentau_prep.artifacts.jsonio import dump_own

        document = {
            "command": self.command,
            "schema_version": SCHEMA_VERSION,
            **payload,
            "warnings": [notice.as_json() for notice in warnings],
        }
        return without_secrets(dump_own(document).decode("utf-8"))

    def _on_notice(self, notice: Notice) -> None:
        from rich.text import Text

        # Several steps of a run may have the same warning.
        shown = ((n.kind, n.message) == (notice.kind, notice.message) for n in self.notices)
        if not self.rank.speaks or any(shown):
            return
        self.notices.append(notice)
        of_kind = sum(each.kind == notice.kind for each in self.notices)
        if of_kind > _SHOWN_PER_KIND and not self.common.verbose:
            self._not_shown += 1
            return
        self.stderr.print(Text.assemble(("Warning: ", "bold"), notice.message))

    def _on_progress(self, what: str, done: int, total: int, name: str) -> None:
        quiet = self.common.quiet or not self.rank.speaks or not _may_have_colours(sys.stderr)
        if quiet or not self.stderr.is_terminal:
            return
        from opentau_prep.cli.tables import shortened

        if self._progress is None:
            self._progress = self._new_progress()
            self._progress.start()
        if what not in self._tasks:
            for before in self._tasks.values():  # how many fits there are is not known beforehand
                self._progress.update(before, visible=False)
            self._tasks[what] = self._progress.add_task(what, total=total, name="", at=0.0)
        shown = shortened(printable(name), max(8, self.stderr.width - _PROGRESS_WIDTH))
        # Steps that are done say so in the end; only what goes on is worth a line.
        running = done < total
        task = self._tasks[what]
        now = self._progress.get_time()
        self._progress.update(
            task, completed=done, total=total, name=shown, at=now, visible=running
        )

    def _new_progress(self) -> Progress:
        from rich import progress

        text = progress.TextColumn
        return progress.Progress(
            text("{task.description}", markup=False),
            progress.BarColumn(20),
            progress.MofNCompleteColumn(),
            time_column(),
            text("{task.fields[name]}", markup=False),
            console=self.stderr,
            transient=True,
        )

    def _stop_progress(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
