"""The very commands that fix something, ready to be pasted into a shell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from opentau_prep.heads.options import HeadOptions
from opentau_prep.storage import shell_command
from opentau_prep.tokenizer.options import DEFAULT_CHUNK_SIZE, FitOptions

if TYPE_CHECKING:
    from opentau_prep.context import RunContext
    from opentau_prep.metadata.resolve import ResolvedMixture

__all__ = ["Commands"]

_GIB = 1 << 30


class Commands:
    """Makes commands for one mixture.

    Args:
        resolved: The mixture.
        context: Its `artifact_root` goes into every command.
        head_options: What the heads on disk were made with.
        fit_options: What the tokenizer on disk was fitted with.
    """

    def __init__(
        self,
        resolved: ResolvedMixture,
        context: RunContext,
        head_options: HeadOptions | None = None,
        fit_options: FitOptions | None = None,
    ) -> None:
        path = resolved.mixture.path
        roots = [dataset.root for dataset in resolved.located_datasets]
        self._roots = roots if path is None else []
        self._target = [] if path is None else ["--mixture-json", str(path.absolute())]
        root = context.artifact_root
        self._shared = [] if root is None else ["--artifact-root", str(Path(root).absolute())]
        if context.prep_dir is not None:
            self._shared += ["--prep-dir", str(context.prep_dir.absolute())]
        self._heads = head_options or HeadOptions()
        self._fit = fit_options or FitOptions(DEFAULT_CHUNK_SIZE)

    def step(self, name: str, *options: object) -> str:
        """Return a command on the whole mixture."""
        return self._line(name, self._roots, [*self._target, *options])

    def published_stats(self, choice: str) -> str:
        """Return the run that settles published stats: `keep` or `replace` them."""
        return self.step("run", "--published-stats", choice)

    def on_roots(self, name: str, roots: Iterable[str], *options: object) -> str:
        """Return a command on datasets as they are, whatever the mixture selects from them."""
        return self._line(name, roots, options)

    def heads(self, out: Path, *options: object) -> str:
        """Return the command that recomputes the heads."""
        found: list[object] = []
        defaults = HeadOptions()
        for each in fields(HeadOptions):
            value = getattr(self._heads, each.name)
            if value != getattr(defaults, each.name):
                found += _option(each.name, value)
        return self.step("heads", *found, "--out", out.absolute(), *options)

    def tokenizer(self, folder: Path, *options: object) -> str:
        """Return the command that fits the tokenizer again."""
        found: list[object] = ["--chunk-size", self._fit.chunk_size]
        defaults = FitOptions(DEFAULT_CHUNK_SIZE)
        for each in fields(FitOptions):
            value = getattr(self._fit, each.name)
            if each.name == "memory_bytes" and value is not None:
                found += _option("memory_budget", value / _GIB)
            elif each.name not in ("chunk_size", "pilot", "skip_fit") and value != getattr(
                defaults, each.name
            ):
                found += _option(each.name, value)
        return self.step("fit-tokenizer", *found, "--out-dir", folder.absolute(), *options)

    def _line(self, name: str, roots: Iterable[str], options: Iterable[object]) -> str:
        return shell_command(name, roots, *options, *self._shared)


def _option(name: str, value: object) -> list[object]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", value]
