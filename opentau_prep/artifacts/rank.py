"""Which of several processes writes, and how the others wait for it.

The rank is read once at the start and passed on as a value. Nothing here joins a collective or
imports torch: a process that was started alone, under torchrun, accelerate, MPI or SLURM is
distinguished by what its environment says, and in library use by a torch.distributed or accelerate
that is already initialized.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from opentau_prep import notices
from opentau_prep.errors import ArtifactError, ConfigError
from opentau_prep.storage.look import looking_anew

__all__ = ["Rank", "main_rank_notices", "wait_for", "wait_limit"]

T = TypeVar("T")

_NODE_LOCAL = "OPENTAU_PREP_NODE_LOCAL"
_WAIT_TIMEOUT = "OPENTAU_PREP_WAIT_TIMEOUT_S"
# Half an hour, as torch.distributed waits by default under gloo.
_DEFAULT_TIMEOUT_S = 1800.0
# Polls begin quickly, for small mixtures, and slow down, for the file server.
_FIRST_POLL_S = 0.05
_SLOWEST_POLL_S = 2.0

# (source, rank, world size, local rank), the most specific launcher first: torchrun runs inside
# SLURM jobs.
_LAUNCHERS = (
    ("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("openmpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("mvapich", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
    ("pmi", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ("slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
)


@dataclass(frozen=True)
class Rank:
    """This process's place among those that run the same command.

    Attributes:
        rank: Its number, 0 to `world_size` - 1.
        world_size: How many there are.
        local_rank: Its number on its node, None when the launcher does not say.
        is_main: Whether it computes and writes.
        source: Who reported it: `"single"`, `"torch.distributed"`, `"accelerate"`, `"torchrun"`,
            `"slurm"`, ...
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int | None = 0
    is_main: bool = True
    source: str = "single"

    @property
    def speaks(self) -> bool:
        """Whether warnings and progress come from this process: the first one of all nodes."""
        return self.rank == 0

    @classmethod
    def detect(cls, environ: Mapping[str, str] | None = None) -> Rank:
        """Return the rank of this process.

        One process of all is the main one. With `OPENTAU_PREP_NODE_LOCAL=1` it is one a node, for
        nodes that do not share the file system the datasets lie on.

        Args:
            environ: The environment variables; those of the process by default.

        Raises:
            ConfigError: A launcher's variable is not a number, or does not fit the others.
        """
        environ = os.environ if environ is None else environ
        found = _from_torch(environ) or _from_accelerate() or _from_environment(environ)
        if found is None or found[1] == 1:
            return cls()
        rank, world_size, local_rank, source = found
        is_main = rank == 0
        if environ.get(_NODE_LOCAL, "") not in ("", "0"):
            if local_rank is None:
                raise ConfigError(
                    f"{_NODE_LOCAL} is set, but {source} does not tell the rank within the node",
                    where="environment",
                    hint="Set LOCAL_RANK, or start with torchrun.",
                )
            is_main = local_rank == 0
        return cls(rank, world_size, local_rank, is_main, source)


def wait_for(
    ready: Callable[[], T | None],
    *,
    what: str,
    timeout_s: float | None = None,
    poll_s: float = _FIRST_POLL_S,
) -> T:
    """Return what `ready` returns once that is not None, asking ever more slowly.

    Args:
        ready: Looks at files and returns the finished value, or None.
        what: What is waited for, for the message.
        timeout_s: The limit; by default `$OPENTAU_PREP_WAIT_TIMEOUT_S`, else 1,800 s.
        poll_s: The first pause; it doubles up to 2 s.

    Raises:
        ArtifactError: The limit was reached.
        ConfigError: The environment variable is not a positive number.
    """
    limit = wait_limit() if timeout_s is None else timeout_s
    deadline = time.monotonic() + limit
    while True:
        with looking_anew():  # at what the main rank has written since
            value = ready()
        if value is not None:
            return value
        left = deadline - time.monotonic()
        if left <= 0:
            raise ArtifactError(
                f"not written by the main rank within {limit:g} s; "
                "that process has probably failed or been killed",
                where=what,
                hint=f"See the main rank's output and run again; {_WAIT_TIMEOUT} sets the limit.",
            )
        time.sleep(min(poll_s, left))
        poll_s = min(poll_s * 2, _SLOWEST_POLL_S)


@contextlib.contextmanager
def main_rank_notices(rank: Rank) -> Iterator[None]:
    """Let the notices of the block through once each, from one process; drop those of the others.

    They are passed on at the end of the block, also when it raises. Commands and library entry
    points wrap their whole work in it, so that 8 ranks give one warning.
    """
    emitted: list[notices.Notice] = []
    try:
        with notices.collect_notices() as emitted:
            yield
    finally:
        _emit_distinct(emitted if rank.speaks else [])


def _emit_distinct(emitted: list[notices.Notice]) -> None:
    passed: list[notices.Notice] = []
    for notice in emitted:
        if notice not in passed:
            passed.append(notice)
            notices.emit(notice)


def _from_torch(environ: Mapping[str, str]) -> tuple[int, int, int | None, str] | None:
    distributed: Any = sys.modules.get("torch.distributed")
    # A torch that is half imported, or built without distributed, has none of these.
    if not getattr(distributed, "is_available", bool)() or not distributed.is_initialized():
        return None
    local_names = (name for *_, name in _LAUNCHERS if name in environ)
    local = next((_number(environ, name) for name in local_names), None)
    return distributed.get_rank(), distributed.get_world_size(), local, "torch.distributed"


def _from_accelerate() -> tuple[int, int, int | None, str] | None:
    module: Any = sys.modules.get("accelerate.state")
    state = getattr(getattr(module, "PartialState", None), "_shared_state", None)
    if not state or "num_processes" not in state or "process_index" not in state:
        return None
    local = state.get("local_process_index", -1)
    local = local if local >= 0 else None
    return state["process_index"], state["num_processes"], local, "accelerate"


def _from_environment(environ: Mapping[str, str]) -> tuple[int, int, int | None, str] | None:
    for source, rank_name, size_name, local_name in _LAUNCHERS:
        if rank_name not in environ or size_name not in environ:
            continue
        rank, size = _number(environ, rank_name), _number(environ, size_name)
        if size < 1 or rank >= size:
            raise ConfigError(
                f"{rank_name}={rank} does not fit {size_name}={size}; ranks go from 0 to size - 1",
                where="environment",
                hint=f"Unset {rank_name} and {size_name} if no launcher is in use.",
            )
        local = _number(environ, local_name) if local_name in environ else None
        return rank, size, local, source
    return None


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ[name]
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(
            f"{name} is {text!r}, expected a whole number of at least 0",
            where="environment",
            hint=f"Unset {name} if no launcher is in use.",
        )
    return int(text)


def wait_limit() -> float:
    """Return how many seconds another rank waits: `$OPENTAU_PREP_WAIT_TIMEOUT_S`, else 1,800.

    Raises:
        ConfigError: The variable is not a positive number.
    """
    environ = os.environ
    text = environ.get(_WAIT_TIMEOUT, "")
    try:
        limit = float(text) if text else _DEFAULT_TIMEOUT_S
    except ValueError:
        limit = -1.0
    if not 0 < limit < float("inf"):
        raise ConfigError(
            f"{_WAIT_TIMEOUT} is {text!r}, expected a number of seconds above 0",
            where="environment",
        )
    return limit
