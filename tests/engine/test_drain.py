"""The loop around a cluster, with a cluster that is a list."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from opentau_prep.engine.jobs import Job
from opentau_prep.engine.loop import WorkerDiedError, drain, work
from opentau_prep.errors import EngineError


class FakePool:
    """Two slots; the newest job finishes first; `deadly` items take the pending ones down."""

    def __init__(self, deadly: Collection[int] = ()) -> None:
        self.deadly = deadly
        self.payloads: dict[int, bytes] = {}
        self.most = 0
        self.stopped: list[int] = []

    def slots(self) -> int:
        return 2

    def submit(self, payload: bytes) -> int:
        self.payloads[len(self.payloads)] = payload
        return len(self.payloads) - 1

    def finished(self, futures: Collection[int]) -> list[int]:
        self.most = max(self.most, len(futures))
        if any(self._deadly(future) for future in futures):
            return list(futures)
        return [max(futures)]

    def result(self, future: int) -> bytes:
        # All that ran beside the deadly one are dead too, the first time.
        neighbours = range(future - 1, future + 2)
        alone = future >= 10
        if any(self._deadly(n) for n in ([future] if alone else neighbours)):
            raise WorkerDiedError
        return work(self.payloads[future])

    def stop(self, futures: Collection[int]) -> None:
        self.stopped = sorted(futures)

    def _deadly(self, future: int) -> bool:
        import cloudpickle

        payload = self.payloads.get(future)
        return payload is not None and cloudpickle.loads(payload)[1].item in self.deadly


JOBS = [Job(i, f"set-{i}", i) for i in range(10)]


def drained(pool: Any, *, keep_going: bool) -> dict[int, Any]:
    return dict(drain(pool, lambda item: item * 2, JOBS, keep_going=keep_going))


def test_drain_hands_out_no_more_than_there_are_slots() -> None:
    pool = FakePool()
    found = drained(pool, keep_going=False)
    assert {i: done.value for i, done in found.items()} == {i: 2 * i for i in range(10)}
    assert pool.most == 2
    assert pool.stopped == []


def test_drain_keep_going_suspects_run_again_alone_and_only_the_deadly_one_fails() -> None:
    pool = FakePool(deadly=[4])
    found = drained(pool, keep_going=True)
    assert sorted(found) == list(range(10))
    assert [i for i, done in found.items() if done.failure is not None] == [4]
    assert 11 <= len(pool.payloads) <= 13


def test_drain_fail_fast_stops_at_the_first_death() -> None:
    pool = FakePool(deadly=[4])
    found = drained(pool, keep_going=False)
    failures = [done.failure for done in found.values() if done.failure is not None]
    assert len(failures) == 1
    assert isinstance(failures[0].error, EngineError)
    assert len(pool.payloads) < 8


def test_drain_closed_by_the_caller_stops_what_is_pending() -> None:
    pool = FakePool()
    running = drain(pool, lambda item: item, JOBS, keep_going=True)
    next(running)
    running.close()
    assert pool.stopped == [0]


def test_drain_error_of_the_cluster_stops_what_is_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = FakePool()

    def lost(futures: Collection[int]) -> list[int]:
        raise EngineError("lost the connection")

    monkeypatch.setattr(pool, "finished", lost)
    with pytest.raises(EngineError, match="lost"):
        drained(pool, keep_going=True)
    assert pool.stopped == [0, 1]
