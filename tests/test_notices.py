"""Warnings are records of `logging`; expected errors are also the builtins that trainers raise."""

from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest

from opentau_prep import ConfigError, MetadataError, aggregate_stats, standardize_stats
from opentau_prep.notices import Notice, collect_notices, emit, notices_shown_by, warn

LACKING = [
    {"x": {"min": [0.0], "max": [1.0], "mean": [0.5], "std": [0.1], "count": [3], "q01": [0.0]}},
    {"x": {"min": [0.0], "max": [1.0], "mean": [0.5], "std": [0.1], "count": [3]}},
]


def test_library_warning_is_plain_log_record(caplog: pytest.LogCaptureFixture) -> None:
    aggregate_stats(LACKING, contributor_names=["lab/100%s", "lab/b"])
    (record,) = caplog.records
    assert record.name == "opentau_prep.pooling.aggregate"
    assert record.levelno == logging.WARNING
    assert "lab/b" in record.getMessage()
    assert record.notice.kind == "dropped_quantiles"  # type: ignore[attr-defined]


def test_one_room_can_be_silenced_by_its_logger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="opentau_prep.pooling")
    aggregate_stats(LACKING)
    assert not caplog.records


def test_collected_notices_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with collect_notices() as said:
        warn("a_kind", "100 % of it", dataset="lab/a")
    assert not caplog.records
    (notice,) = said
    emit(pickle.loads(pickle.dumps(notice)))  # as a worker's notices come back
    assert caplog.records[0].getMessage() == "100 % of it"
    assert caplog.records[0].name == __name__


def test_notices_shown_by_gets_logged_notices_and_nothing_else() -> None:
    shown: list[Notice] = []
    logger = logging.getLogger("opentau_prep.pooling")
    with notices_shown_by(shown.append):
        logger.warning("no notice")
        aggregate_stats(LACKING)
    aggregate_stats(LACKING)
    assert [notice.kind for notice in shown] == ["dropped_quantiles"]


def test_errors_are_the_builtins_of_the_trainer() -> None:
    with pytest.raises(ValueError, match=r"contributor_names \(3\)"):
        aggregate_stats(LACKING, contributor_names=["a", "b", "c"])
    vector = {stat: np.zeros(2) for stat in ("min", "max", "mean", "std")}
    names = {"state": "s", "actions": "a"}
    widths = {"max_state_dim": 4, "max_action_dim": 4}
    with pytest.raises(KeyError) as lacking:
        standardize_stats({"s": vector}, name_map=names, **widths)
    assert isinstance(lacking.value, MetadataError)
    assert "'a'" in str(lacking.value)
    with pytest.raises(IndexError) as outside:
        standardize_stats({"s": vector, "a": vector}, name_map=names, state_index=[2], **widths)
    assert isinstance(outside.value, ConfigError)
    back = pickle.loads(pickle.dumps(outside.value))
    assert type(back) is type(outside.value)
    assert str(back) == str(outside.value)
