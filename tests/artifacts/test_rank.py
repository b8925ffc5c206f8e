from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest

from opentau_prep import notices
from opentau_prep.artifacts.rank import Rank, main_rank_notices, wait_for
from opentau_prep.errors import ArtifactError, ConfigError

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}


@pytest.fixture(autouse=True)
def no_frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch.distributed", "accelerate.state"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Rank()),
        (TORCHRUN, Rank(5, 8, 1, False, "torchrun")),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Rank()),
        ({"RANK": "3"}, Rank()),
        (
            {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"},
            Rank(0, 2, None, True, "openmpi"),
        ),
        (
            {"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2"},
            Rank(1, 2, None, False, "mvapich"),
        ),
        ({"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1"}, Rank(1, 2, 1, False, "pmi")),
        (
            {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"},
            Rank(2, 4, 0, False, "slurm"),
        ),
        # torchrun inside a SLURM job: SLURM counts launchers, torchrun counts processes.
        ({**TORCHRUN, "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, Rank(5, 8, 1, False, "torchrun")),
    ],
)
def test_detect_launcher_environment_gives_rank(environ: dict[str, str], expected: Rank) -> None:
    assert Rank.detect(environ) == expected


def test_detect_node_local_makes_one_main_a_node_and_one_speaker() -> None:
    node_local = {"OPENTAU_PREP_NODE_LOCAL": "1"}
    ranks = [
        Rank.detect({**node_local, "RANK": str(r), "WORLD_SIZE": "4", "LOCAL_RANK": str(r % 2)})
        for r in range(4)
    ]
    assert [rank.is_main for rank in ranks] == [True, False, True, False]
    assert [rank.speaks for rank in ranks] == [True, False, False, False]
    with pytest.raises(ConfigError, match="LOCAL_RANK"):
        Rank.detect({**node_local, "RANK": "1", "WORLD_SIZE": "4"})
    assert Rank.detect({**TORCHRUN, "OPENTAU_PREP_NODE_LOCAL": "0"}).is_main is False


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"RANK": "x"}, "RANK"),
        ({"RANK": "-1"}, "RANK"),
        ({"RANK": ""}, "RANK"),
        ({"RANK": "8"}, "RANK"),
        ({"WORLD_SIZE": "0", "RANK": "0"}, "WORLD_SIZE"),
        ({"WORLD_SIZE": "2.0"}, "WORLD_SIZE"),
        ({"LOCAL_RANK": "one"}, "LOCAL_RANK"),
        ({"RANK": "²"}, "RANK"),
    ],
)
def test_detect_malformed_variable_is_named(changes: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        Rank.detect({**TORCHRUN, **changes})
    assert caught.value.exit_code == 2


def test_detect_initialized_torch_wins_over_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def distributed(initialized: bool) -> SimpleNamespace:
        return SimpleNamespace(
            is_available=lambda: True,
            is_initialized=lambda: initialized,
            get_rank=lambda: 1,
            get_world_size=lambda: 3,
        )

    monkeypatch.setitem(sys.modules, "torch.distributed", distributed(True))  # type: ignore[arg-type]
    assert Rank.detect(TORCHRUN) == Rank(1, 3, 1, False, "torch.distributed")
    monkeypatch.setitem(sys.modules, "torch.distributed", distributed(False))  # type: ignore[arg-type]
    assert Rank.detect(TORCHRUN).source == "torchrun"
    monkeypatch.setitem(sys.modules, "torch.distributed", SimpleNamespace())  # type: ignore[arg-type]
    assert Rank.detect(TORCHRUN).source == "torchrun"


def test_detect_initialized_accelerate_wins_over_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = {"num_processes": 4, "process_index": 2, "local_process_index": 0}
    for shared, expected in ((state, Rank(2, 4, 0, False, "accelerate")), ({}, Rank())):
        module = SimpleNamespace(PartialState=SimpleNamespace(_shared_state=shared))
        monkeypatch.setitem(sys.modules, "accelerate.state", module)  # type: ignore[arg-type]
        assert Rank.detect({}) == expected


def test_wait_for_value_that_appears_is_returned() -> None:
    answers = iter([None, None, "here"])
    assert wait_for(lambda: next(answers), what="x", timeout_s=5, poll_s=0.001) == "here"


def test_wait_for_limit_error_says_what_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENTAU_PREP_WAIT_TIMEOUT_S", "0.2")
    start = time.monotonic()
    with pytest.raises(ArtifactError, match=r"^meta/a\.json: .*main rank within 0\.2 s.*killed"):
        wait_for(lambda: None, what="meta/a.json")
    assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_wait_for_malformed_limit_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("OPENTAU_PREP_WAIT_TIMEOUT_S", text)
    with pytest.raises(ConfigError, match="OPENTAU_PREP_WAIT_TIMEOUT_S"):
        wait_for(lambda: None, what="x")


def test_main_rank_notices_each_once_and_from_one_process() -> None:
    for rank, expected in ((Rank(), ["a", "b"]), (Rank(1, 2, 1, False, "torchrun"), [])):
        with notices.collect_notices() as said:
            with main_rank_notices(rank):
                for text in ("a", "b", "a"):
                    notices.warn("kind", text)
            assert [notice.message for notice in said] == expected


def test_main_rank_notices_block_raises_they_are_said_all_the_same() -> None:
    with notices.collect_notices() as said:
        with pytest.raises(ValueError, match="x"), main_rank_notices(Rank()):
            notices.warn("kind", "a")
            raise ValueError("x")
        assert [notice.message for notice in said] == ["a"]
