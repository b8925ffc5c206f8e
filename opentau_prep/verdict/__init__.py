"""What there is of a mixture's preparation, what is wrong with it, and what to do: one judge.

`run`, `report` and their exit codes ask this room, so that no two of them disagree.
"""

from opentau_prep.verdict.facts import Verdict
from opentau_prep.verdict.judge import OutputPaths, judge_mixture

__all__ = ["OutputPaths", "Verdict", "judge_mixture"]
