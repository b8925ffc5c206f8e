"""Clusters that belong to a test, as users have them: up before a run and after it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = {"dask": "distributed", "ray": "ray"}

# A ray cluster cannot be in the process of the test: the engine joins clusters, one at a time.
_RAY_HEAD = """
import logging, sys, ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
         logging_level=logging.CRITICAL, _temp_dir=sys.argv[1])
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


def need(engine: str) -> None:
    """Skip the test when the engine's package is not installed."""
    if engine == "ray":
        # Before the import, which reads it: tests bring their own secret and leave none at home.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", uuid.uuid4().hex)
    pytest.importorskip(PACKAGES[engine])


@contextlib.contextmanager
def running_cluster(engine: str) -> Iterator[str]:
    """Yield the address of a cluster with two processes of one thread."""
    need(engine)
    with _dask() if engine == "dask" else _ray() as address:
        yield address


@contextlib.contextmanager
def _dask() -> Iterator[str]:
    import distributed

    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address=None,
        memory_limit=0,
        silence_logs=60,
    ) as cluster:
        yield cluster.scheduler_address


@contextlib.contextmanager
def _ray() -> Iterator[str]:
    private = {"RAY_USAGE_STATS_ENABLED": "0"}
    root = str(Path(__file__).resolve().parents[1])
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as scratch:
        head = subprocess.Popen(
            [sys.executable, "-c", _RAY_HEAD, scratch],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **private, "PYTHONPATH": root},
        )
        assert head.stdin is not None
        assert head.stdout is not None
        try:
            yield head.stdout.readline().strip()
        finally:
            head.stdin.close()
            head.wait(timeout=30)
            head.stdout.close()
