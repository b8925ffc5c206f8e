"""The cluster engines keep the promises of `map_ordered`, on clusters with real processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import PACKAGES, need, running_cluster

import opentau_prep
from opentau_prep import notices
from opentau_prep.engine import Failure, get_engine, map_ordered
from opentau_prep.engine.remote import check_workers
from opentau_prep.errors import DataError, EngineError

ENGINES = list(PACKAGES)


@pytest.fixture(scope="module", params=ENGINES)
def cluster(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    with running_cluster(request.param) as address:
        yield request.param, address


def worker_function() -> Callable[[Any], Any]:
    # Nested, so that it travels by value: workers of a cluster do not know the tests.
    def work(item: Any) -> Any:
        kind, value = item if isinstance(item, tuple) else ("value", item)
        notices.warn("seen", f"saw {value}")
        if kind == "slow":
            time.sleep(value)
        if kind == "error":
            raise DataError("is torn", where="data/0.parquet")
        if kind == "fault":
            raise KeyError("columns")
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "lock":
            return threading.Lock()
        if kind == "environment":
            return os.getpid(), [os.environ.get(name) for name in value]
        if kind == "for ever":
            Path(value).write_bytes(b"")
            try:
                while True:
                    time.sleep(0.01)
            finally:
                Path(value).unlink()
        if kind == "error after" and wait_for(Path(value)):
            raise DataError("is torn")
        return value

    def wait_for(path: Path) -> bool:
        while not path.exists():
            time.sleep(0.01)
        return True

    return work


def run(engine: Any, items: list[Any], **options: Any) -> Any:
    labels = [f"set-{i}" for i in range(len(items))]
    return map_ordered(worker_function(), items, labels=labels, engine=engine, **options)


@pytest.mark.parametrize("name", ENGINES)
def test_own_cluster_keep_going_order_notices_failures_and_one_thread(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    need(name)
    variables = ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"]
    environ = dict(os.environ)
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    items = [("slow", 0.3), 1, ("error", 2), ("fault", 3), ("die", 4), ("lock", 5)]
    items += [threading.Lock(), ("environment", variables), 8]
    with notices.collect_notices() as said:
        found = run(get_engine(name, workers=2), items, keep_going=True)
    assert [found[0], found[1], found[8]] == [0.3, 1, 8]
    assert all(isinstance(failure, Failure) for failure in found[2:7])
    assert [failure.label for failure in found[2:7]] == [f"set-{i}" for i in range(2, 7)]
    assert type(found[2].error) is DataError
    assert "KeyError: 'columns'" in found[3].traceback
    assert "worker process died or was stopped" in str(found[4].error)
    assert "pickle" in str(found[5].error)
    assert "pickle" in str(found[6].error)
    pid, limits = found[7]
    assert (pid != os.getpid(), limits) == (True, ["1", "1"])
    # The dead and the dumb say nothing; all others do, in the order of the items.
    assert [n.message for n in said][:4] == ["saw 0.3", "saw 1", "saw 2", "saw 3"]
    assert [n.message for n in said][-1] == "saw 8"
    assert dict(os.environ) == environ
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    out, err = capfd.readouterr()
    assert out == ""
    # Ray says on stderr that a worker died, and cannot be told not to.
    assert [line for line in err.splitlines() if "worker died" not in line] == []


@pytest.mark.parametrize("name", ENGINES)
def test_own_cluster_worker_dies_engine_error_names_the_item(name: str) -> None:
    need(name)
    with pytest.raises(EngineError, match=r"set-1.*died.*fewer --workers"):
        run(get_engine(name, workers=2), [("slow", 0.2), ("die", 0), ("slow", 0.2), 3])


def test_address_fail_fast_ends_running_jobs_and_leaves_the_cluster_up(
    cluster: tuple[str, str], tmp_path: Path
) -> None:
    engine = get_engine(*cluster)
    began = time.monotonic()
    marker = tmp_path / "running"
    items = [("for ever", str(marker)), ("error after", str(marker)), *range(50)]
    with pytest.raises(DataError, match="set-1: is torn"):
        run(engine, items)
    assert time.monotonic() - began < 20
    assert not marker.exists(), "the job was not unwound"
    assert run(engine, list(range(30))) == list(range(30))


def test_address_workers_of_another_version_are_refused(
    cluster: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = opentau_prep.__version__
    monkeypatch.setattr(opentau_prep, "__version__", "99.0")
    with pytest.raises(EngineError, match=rf"opentau-prep {there}.*opentau-prep 99\.0"):
        run(get_engine(*cluster), [1, 2])


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("address", ["127.0.0.1:9", "nonsense://x"])
def test_address_that_nobody_answers_is_an_engine_error(name: str, address: str) -> None:
    need(name)
    began = time.monotonic()
    with pytest.raises(EngineError) as caught:
        run(get_engine(name, address), [1, 2])
    assert address in (caught.value.where or "")
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("name", ENGINES)
def test_get_engine_package_missing_says_how_to_install_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(EngineError) as caught:
        get_engine(name)
    assert f"pip install 'opentau-prep[{name}]'" in str(caught.value)


def test_check_workers_other_python_or_no_package_is_an_engine_error() -> None:
    python = list(sys.version_info[:2])
    check_workers({"a": (*python, opentau_prep.__version__)})
    with pytest.raises(EngineError, match=r"b: the worker runs Python 2\.7"):
        check_workers({"b": [2, 7, opentau_prep.__version__]})
    with pytest.raises(EngineError, match="cannot import opentau_prep"):
        check_workers({"c": ModuleNotFoundError("No module named 'opentau_prep'")})
