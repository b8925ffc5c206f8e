"""The outcome of a command, passed from the main rank to the others of one machine.

Eight ranks of a launcher would each open every dataset to find that the main rank has done the
work. Instead the main rank leaves its outcome in this user's temporary folder, and the others wait
for that alone. Where there is none (several machines, no launcher that says how many ranks share
one, a main rank that does not come), they look at the artifacts themselves, as ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentau_prep.artifacts.atomic import write_atomic
from opentau_prep.artifacts.rank import Rank, wait_limit
from opentau_prep.errors import ArtifactError

__all__ = ["Relay"]

# What distinguishes launches, next to the process that started the ranks.
_LAUNCH = (
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "PMIX_NAMESPACE",
)
_LOCAL_SIZES = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
# Others end within half a second of the main rank, and cost little while they wait for minutes.
_FIRST_POLL_S, _SLOWEST_POLL_S = 0.05, 0.3
# A main rank that has not begun by then is not waited for here.
_BEGIN_S = 15.0
# An outcome that was begun so long before this process is another launch's.
_OLDEST_S = 60.0
# A day: a slow rank can still read it, and nothing is left for good.
_KEPT_S = 86_400.0


@dataclass(frozen=True)
class Relay:
    """The way from the main rank to the others, for one command.

    Attributes:
        path: Where the outcome is put.
    """

    path: Path

    @classmethod
    def of(
        cls, rank: Rank, words: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> Relay | None:
        """Return the relay of a command; None where ranks cannot be known to share a machine.

        Args:
            rank: This process.
            words: The command and its options, the same on all ranks.
            environ: The environment variables; those of the process by default.
        """
        environ = os.environ if environ is None else environ
        if rank.world_size == 1 or str(rank.world_size) not in map(environ.get, _LOCAL_SIZES):
            return None
        folder = Path(tempfile.gettempdir()) / f"opentau-prep-{os.geteuid()}"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            found = os.lstat(folder)
            if found.st_uid == os.geteuid() and not found.st_mode & 0o077:
                launch = [environ.get(name, "") for name in _LAUNCH]
                named = json.dumps([_launcher(), os.getcwd(), launch, list(words)])
                digest = hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:24]
                return cls(folder / f"{digest}.json")
        return None

    def begin(self) -> None:
        """As the main rank: say that the work has begun."""
        for old in self.path.parent.glob("*.json"):
            with contextlib.suppress(OSError):
                if time.time() - old.stat().st_mtime > _KEPT_S:
                    old.unlink()
        self._write({"begun": time.time(), "pid": os.getpid()})

    def end(self, outcome: Mapping[str, Any]) -> None:
        """As the main rank: leave the outcome, JSON-ready."""
        self._write({"begun": time.time(), "pid": os.getpid(), "outcome": outcome})

    def wait(self) -> Mapping[str, Any] | None:
        """As another rank: return the outcome; None when the main rank does not begin here.

        Raises:
            ArtifactError: The main rank has ended without one, or takes too long.
        """
        started = time.time()
        limit, pause = wait_limit(), _FIRST_POLL_S
        seen: tuple[int, int] | None = None
        found: dict[str, Any] | None = None
        while True:
            state = self._state()
            if state != seen:
                seen, found = state, self._read()
            if found is None or found["begun"] < started - _OLDEST_S:
                if time.time() - started > _BEGIN_S:
                    return None
            elif "outcome" in found:
                outcome: Mapping[str, Any] = found["outcome"]
                return outcome
            elif not _is_alive(found["pid"]) and self._read() == found:
                raise ArtifactError("the main rank has ended without an outcome", where="rank 0")
            if time.time() - started > limit:
                raise ArtifactError(f"the main rank has not ended within {limit:g} s")
            time.sleep(pause)
            pause = min(_SLOWEST_POLL_S, pause * 1.2)

    def _write(self, content: Mapping[str, Any]) -> None:
        with contextlib.suppress(ArtifactError):  # the others then look for themselves
            write_atomic(self.path, json.dumps(content).encode("utf-8", "backslashreplace"))

    def _state(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return None
        fits = isinstance(found, dict) and {"begun", "pid"} <= found.keys()
        return found if fits else None


def _launcher() -> int:
    """Return the process that started the ranks: the nearest one above that is not itself a rank.

    Between it and this process may be scripts, which each rank has of its own.
    """
    pid = os.getppid()
    with contextlib.suppress(OSError, ValueError, IndexError):  # no /proc, or another user's
        while pid > 1:
            names = {pair.partition(b"=")[0] for pair in _proc(pid, "environ").split(b"\0")}
            if names.isdisjoint(map(os.fsencode, _LOCAL_SIZES)):
                break
            # "pid (name) state ppid ...", and the name may hold anything.
            pid = int(_proc(pid, "stat").rpartition(b")")[2].split()[1])
    return pid


def _proc(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
