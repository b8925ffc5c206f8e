"""What the report says, as data: the page and the JSON document are made of the same records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from opentau_prep.text import several
from opentau_prep.verdict.details import (
    HeadsFacts,
    LossFacts,
    SpeedFacts,
    TokenizerFacts,
    ValidationFacts,
)

__all__ = ["ArtifactFacts", "DatasetFacts", "Level", "MixtureFacts", "ToDo", "Verdict"]

Level = Literal["ok", "look", "do"]
"""How much something matters: nothing to do, worth a look, or to be done before training."""


@dataclass(frozen=True)
class DatasetFacts:
    """One entry of the mixture.

    Attributes:
        name: Its mixture-level name.
        kind: `robot`, `vqa`, or `lost`: could not be opened.
        root: Its folder.
        version: Of its format.
        robot_type: After the entry's override.
        control_mode: The same.
        fps: Frames a second.
        episodes: Selected episodes.
        episodes_all: All episodes.
        frames: Selected frames.
        seconds: How long they last.
        weight: Sampling weight: the mixture's, or the selected frames.
        share: Expected share of the samples, 0 to 1.
        fault: Why something of it cannot be read.
    """

    name: str
    kind: str
    root: str | None = None
    version: str | None = None
    robot_type: str | None = None
    control_mode: str | None = None
    fps: float | None = None
    episodes: int | None = None
    episodes_all: int | None = None
    frames: int | None = None
    seconds: float | None = None
    weight: float | None = None
    share: float | None = None
    fault: str | None = None


@dataclass(frozen=True)
class MixtureFacts:
    """The mixture.

    Attributes:
        path: Its file, as it was named.
        mixture_id: What its artifacts are called.
        sha256: Of its content with every `$ref` replaced.
        weights_from: `mixture`, or `selected_frames` where its weights are null.
        action_freq: Rate of the chunk's steps, Hz; None: each dataset's own.
        resampling: How vectors between two frames are made.
        val_split_ratio: Share of the frames that is held out.
        episodes: Selected, in all.
        frames: The same.
        seconds: The same.
        datasets: The entries, in order.
    """

    path: str | None
    mixture_id: str
    sha256: str
    weights_from: str
    action_freq: float | None
    resampling: str
    val_split_ratio: float
    episodes: int
    frames: int
    seconds: float
    datasets: Sequence[DatasetFacts]


@dataclass(frozen=True)
class ArtifactFacts:
    """One artifact.

    Attributes:
        step: The command that makes it.
        kind: What it is, such as `norm head`.
        datasets: The entries it belongs to; empty for the mixture's own.
        root: The dataset's folder.
        path: The file or folder.
        state: `fresh`, `missing`, `stale`, `other options`, `edited`, `not ours`, `published`,
            `damaged`, `optional` or `unknown`.
        level: How much that matters.
        detail: In words, what changed or is wrong.
        force: Whether its command needs `--force` to replace it.
    """

    step: str
    kind: str
    datasets: Sequence[str]
    root: str | None
    path: str
    state: str
    level: Level = "ok"
    detail: str = ""
    force: bool = False


@dataclass(frozen=True)
class ToDo:
    """One thing to do, or to look at.

    Attributes:
        level: `do` or `look`.
        what: In one sentence.
        details: What it is about, in parts.
        command: What to run; empty where a person must act.
        instead: What to run instead of that: another way to settle it.
    """

    level: Level
    what: str
    details: Sequence[str] = ()
    command: str = ""
    instead: str = ""


@dataclass(frozen=True)
class Verdict:
    """The whole report.

    Attributes:
        tool_version: Of this tool.
        ready: Whether nothing needs doing before training.
        to_do: What must be done first, then what is worth a look.
        mixture: The mixture.
        artifacts: Every artifact with its state.
        by_size: Datasets whose data files were compared by number and size only.
        heads: The norm heads.
        speed: Speed percentiles, a dataset each.
        tokenizer: The tokenizer.
        validation: Findings.
        losses: The validation pass and its losses.
        notices: What the library had to say, JSON-ready.
    """

    tool_version: str
    ready: bool
    to_do: Sequence[ToDo]
    mixture: MixtureFacts
    artifacts: Sequence[ArtifactFacts]
    by_size: Sequence[str]
    heads: HeadsFacts
    speed: Sequence[SpeedFacts]
    tokenizer: TokenizerFacts
    validation: ValidationFacts
    losses: LossFacts
    notices: Sequence[Mapping[str, Any]]

    @property
    def words(self) -> str:
        """The verdict in one sentence."""
        to_do = self.count("do")
        return "Ready to train." if self.ready else f"Not ready: {several(to_do, 'thing')} to do."

    def count(self, level: Level) -> int:
        """Return how many things there are of a level."""
        return sum(each.level == level for each in self.to_do)

    def as_json(self) -> dict[str, Any]:
        """Return all of it JSON-ready."""
        return asdict(self)
