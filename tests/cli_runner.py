"""Run the command line as users do: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS")


@dataclass(frozen=True)
class Ran:
    """What a run printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def warnings(self) -> list[str]:
        """The lines of stderr that are warnings."""
        return [line for line in self.err.splitlines() if line.startswith("Warning: ")]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this environment without a launcher's variables, and with `extra`."""
    kept = {k: v for k, v in os.environ.items() if k not in LAUNCHER_VARIABLES}
    return {**kept, **(extra or {})}


def command(*args: object) -> list[str]:
    """Return the command line of a run."""
    return [sys.executable, "-m", "opentau_prep", *map(str, args)]


def run_cli(*args: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
    """Run `opentau-prep ARGS` to its end."""
    done = subprocess.run(
        command(*args),
        cwd=cwd,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)
