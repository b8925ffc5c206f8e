"""Small made-up datasets and mixtures: to try the commands on, to test with, to measure with."""

from __future__ import annotations

from opentau_prep.demo.audit import write_audit_demo
from opentau_prep.demo.mixture import write_demo
from opentau_prep.demo.spec import DatasetSpec, EpisodeData
from opentau_prep.demo.write import write_dataset

__all__ = ["DatasetSpec", "EpisodeData", "write_audit_demo", "write_dataset", "write_demo"]
