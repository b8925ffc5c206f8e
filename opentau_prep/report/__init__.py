"""The state of a mixture's preparation on one page, to read before an expensive training run."""

from opentau_prep.report.page import render_page
from opentau_prep.report.prepare import MadeReport, make_report

__all__ = ["MadeReport", "make_report", "render_page"]
