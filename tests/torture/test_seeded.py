"""The harness has teeth: each bug that breaks a promise is found by the trials named here."""

from __future__ import annotations

import errno
import signal

import pytest

from torture import races
from torture.faults import Bench
from torture.scenarios import SCENARIOS
from torture.seeded import WRITE_SITES
from torture.server import Fault, Ran, Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    try:
        with Server() as server:
            yield server
    except RuntimeError as error:
        pytest.skip(str(error))


def _bench(server, tmp_path, scenario, bug=""):
    return Bench(SCENARIOS[scenario], server, tmp_path, {"TORTURE_BUG": bug} if bug else None)


def _first_problem(bench, faults):
    for fault in faults:
        problems, _ = bench.trial(fault)
        if problems:
            return problems[0]
    return ""


def _kills(bench):
    return [Fault(call, signal.SIGKILL) for call in range(1, bench.calls + 1)]


@pytest.mark.parametrize("scenario", ["stats (v3.0)", "fit-tokenizer --force (v2.1)"])
def test_no_bug_no_problem(server, tmp_path, scenario):
    assert _bench(server, tmp_path, scenario).habits() == []


def test_skipped_fsync_is_seen_in_the_order_of_calls(server, tmp_path):
    found = _bench(server, tmp_path, "speed-percentiles (v2.1)", "skip the fsync").habits()
    assert any("not synced" in problem for problem in found)


@pytest.mark.parametrize("site", [s for s in WRITE_SITES if "folders" not in s])
def test_write_in_place_is_seen_at_every_write_site(server, tmp_path, site):
    found = _bench(server, tmp_path, f"{WRITE_SITES[site]} (v2.1)", site).habits()
    assert any("written in place" in problem for problem in found)


def test_unsynced_file_of_a_folder_is_seen(server, tmp_path):
    site = "opentau_prep.artifacts.folders:_write_file"
    found = _bench(server, tmp_path, "fit-tokenizer (v2.1)", site).habits()
    assert any("not synced" in problem for problem in found)


def test_fixed_temporary_name_is_seen_in_two_runs(server, tmp_path):
    found = _bench(server, tmp_path, "speed-percentiles (v2.1)", "fixed temporary name").habits()
    assert any("fixed temporary name" in problem for problem in found)


def test_backup_after_replace_loses_a_file(server, tmp_path):
    bench = _bench(server, tmp_path, "stats --force (v3.0)", "backup after replace")
    found = (problem for fault in reversed(_kills(bench)) for problem in bench.trial(fault)[0])
    assert any("lost" in problem for problem in found)


def test_sweep_of_foreign_names_loses_a_file(server, tmp_path):
    bench = _bench(server, tmp_path, "speed-percentiles (v2.1)", "sweep of foreign names")
    assert "lost" in _first_problem(bench, [Fault()])


def test_folder_by_a_temporary_name_is_lost(server, tmp_path):
    bug = "folder by a temporary name"
    bench = _bench(server, tmp_path, "fit-tokenizer --force (v2.1)", bug)
    clean = bench.run(log=True)
    renames = [i for i, line in enumerate(clean.log, 1) if "\trename\t" in line and ".bak-" in line]
    assert "lost" in _first_problem(bench, [Fault(call, -errno.EIO) for call in renames])


def test_missing_marker_is_seen_between_two_files(server, tmp_path):
    bench = _bench(server, tmp_path, "stats (v3.0)", "no marker")
    found = (problem for fault in _kills(bench) for problem in bench.trial(fault)[0])
    assert any("without a marker" in problem for problem in found)


def test_missing_clean_up_leaves_a_file(server, tmp_path):
    bench = _bench(server, tmp_path, "validate --write-baseline (v2.1)", "no clean-up")
    faults = [Fault(call, signal.SIGTERM) for call in range(1, bench.calls + 1)]
    assert "left" in _first_problem(bench, faults)


def test_exit_0_without_a_file_is_seen(server, tmp_path):
    bench = _bench(server, tmp_path, "validate --write (v2.1)", "no exit 4")
    faults = [Fault(call, -errno.EROFS) for call in range(1, bench.calls + 1)]
    assert "is not written" in _first_problem(bench, faults)


def test_lost_provenance_is_seen_after_the_next_run(server, tmp_path):
    bench = _bench(server, tmp_path, "heads (v2.1)")
    bench.server = _WithBug(server, "provenance not finished")
    # The next run has other inputs, so that the same bytes do not adopt the artifact again.
    bench.next = ("heads", "--mixture-json", "m.json", "--max-state-dim", "16")
    found = (problem for fault in _kills(bench) for problem in bench.trial(fault)[0])
    assert any("ended with" in problem for problem in found)


class _WithBug:
    """A server whose every run has a bug, also the one after a kill."""

    def __init__(self, server: Server, bug: str) -> None:
        self._server, self._bug = server, bug

    def run(self, *args, env=None, **options) -> Ran:
        return self._server.run(*args, env={**(env or {}), "TORTURE_BUG": self._bug}, **options)


def test_missing_rank_gate_is_seen_in_the_other_ranks_calls(server, tmp_path):
    with Server() as second:
        bench = _bench(server, tmp_path, "speed-percentiles (v3.0)")
        buggy = [_WithBug(each, "no rank gate") for each in (server, second)]
        bench.server = buggy[0]
        found = races._one_death(buggy, bench, 1)
    assert any("the other rank changed" in problem for problem in found)
