from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from opentau_prep import notices
from opentau_prep.engine import Failure, get_engine, map_ordered
from opentau_prep.engine.jobs import UnexpectedError
from opentau_prep.engine.local import default_workers
from opentau_prep.errors import ConfigError, DataError, EngineError


def work(item: Any) -> Any:
    kind, value = item if isinstance(item, tuple) else ("value", item)
    notices.warn("seen", f"saw {value}")
    if kind == "slow":
        time.sleep(value)
    if kind == "touch":
        Path(value).write_bytes(b"")
    if kind == "wait":  # for another worker, so that no clock decides which is done first
        for _ in range(3000):
            if Path(value).exists():
                break
            time.sleep(0.01)
    if kind == "error":
        raise DataError("is torn", where="data/0.parquet", hint="Copy it again.")
    if kind == "fault":
        raise KeyError("columns")
    if kind == "memory":
        raise MemoryError
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "die once" and not Path(value).exists():
        Path(value).write_bytes(b"")
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "lock":
        return threading.Lock()
    return value


def run(items: list[Any], workers: int, **options: Any) -> Any:
    labels = [f"set-{i}" for i in range(len(items))]
    return map_ordered(work, items, labels=labels, engine=get_engine(workers=workers), **options)


@pytest.mark.parametrize("workers", [1, 3])
def test_map_ordered_results_notices_and_progress_in_order(workers: int, tmp_path: Path) -> None:
    sign = str(tmp_path / "sign")
    items = [("wait" if workers > 1 else "value", sign), 1, 2, ("touch", sign), 4]
    progress: list[tuple[int, int, str]] = []
    with notices.collect_notices() as said:
        found = run(items, workers, on_progress=lambda *args: progress.append(args))
    assert found == [sign, 1, 2, sign, 4]
    assert [notice.message for notice in said] == [f"saw {value}" for value in found]
    assert [done for done, _, _ in progress] == [1, 2, 3, 4, 5]
    assert sorted(label for _, _, label in progress) == [f"set-{i}" for i in range(5)]
    if workers > 1:
        assert progress[0][2] != "set-0", "the one that waits did not run next to the others"


def test_map_ordered_worker_count_changes_nothing() -> None:
    items = [*range(12), ("error", 0), ("fault", 1)]
    one, two = (run(items, workers, keep_going=True) for workers in (1, 2))
    assert one[:12] == two[:12] == list(range(12))
    assert [str(f.error) for f in one[12:]] == [str(f.error) for f in two[12:]]


@pytest.mark.parametrize("workers", [1, 2])
def test_map_ordered_fail_fast_raises_with_the_label(workers: int) -> None:
    start = time.monotonic()
    with pytest.raises(DataError) as caught:
        run([1, ("error", 0), ("slow", 30), ("slow", 30)], workers)
    assert str(caught.value) == "set-1: data/0.parquet: is torn. Copy it again."
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("workers", [1, 2])
def test_map_ordered_keep_going_returns_failures_as_values(workers: int) -> None:
    found = run([1, ("error", 0), ("fault", 0), ("memory", 0), 5], workers, keep_going=True)
    assert (found[0], found[4]) == (1, 5)
    data, fault, memory = found[1:4]
    assert all(isinstance(failure, Failure) for failure in found[1:4])
    assert (data.label, type(data.error)) == ("set-1", DataError)
    assert isinstance(fault.error, UnexpectedError)
    assert "KeyError: 'columns'" in fault.traceback
    assert "in work" in fault.traceback
    assert fault.error.exit_code == 4
    assert "fewer --workers" in str(memory.error)


def test_map_ordered_fault_raises_engine_error_with_traceback() -> None:
    with pytest.raises(UnexpectedError, match=r"set-0: unexpected KeyError") as caught:
        run([("fault", 0), 1], 2)
    assert "in work" in caught.value.traceback


def test_map_ordered_worker_dies_engine_error_says_what_to_do() -> None:
    with pytest.raises(EngineError, match=r"set-1.*died.*fewer --workers"):
        run([("slow", 0.3), ("die", 0), 2, 3], 2)


def test_map_ordered_keep_going_only_the_deadly_item_fails(tmp_path: Path) -> None:
    items = [("slow", 0.3), ("die", 0), 2, ("die once", str(tmp_path / "x")), 4]
    found = run(items, 2, keep_going=True)
    assert found[0] == 0.3
    assert isinstance(found[1], Failure)
    assert found[1].label == "set-1"
    assert found[2:] == [2, str(tmp_path / "x"), 4]


def test_map_ordered_result_that_cannot_be_pickled_is_a_failure() -> None:
    found = run([1, ("lock", 0), 2], 2, keep_going=True)
    assert (found[0], found[2]) == (1, 2)
    assert isinstance(found[1], Failure)
    assert "pickle" in str(found[1].error)


def test_map_ordered_argument_that_cannot_be_pickled_is_a_failure() -> None:
    found = run([1, threading.Lock(), 2], 2, keep_going=True)
    assert (found[0], found[2]) == (1, 2)
    assert isinstance(found[1], Failure)


def test_map_ordered_nothing_to_do_gives_an_empty_list() -> None:
    assert run([], 4) == []


def test_map_ordered_closures_run_in_workers_with_one_thread() -> None:
    names = ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"]
    found = map_ordered(
        lambda name: (os.environ[name], os.getpid(), default_workers()),
        names,
        labels=names,
        engine=get_engine(workers=2),
    )
    assert all((threads, workers) == ("1", 1) for threads, _, workers in found)
    assert os.getpid() not in {pid for _, pid, _ in found}


def test_map_ordered_restores_signal_handlers_and_mask() -> None:
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    run([1, 2], 2)
    with pytest.raises(DataError):
        run([("error", 0), 2], 2)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == mask


def test_default_workers_respects_slurm_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    cores = default_workers()
    assert 1 <= cores <= (os.cpu_count() or 1)
    for text, expected in (("1", 1), ("4096", cores), ("0", cores), ("many", cores)):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", text)
        assert default_workers() == expected


def test_get_engine_wrong_arguments_are_config_errors() -> None:
    for arguments in ({"name": "spark"}, {"address": "tcp://x"}, {"workers": 0}):
        with pytest.raises(ConfigError):
            get_engine(**arguments)  # type: ignore[arg-type]
