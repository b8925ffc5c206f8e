"""`meta/quantile_sketch.json`: the sketches, and what is needed to go on from them.

Next to the sketches are the moments of all frames, the hash of every data file and of every
episode's values, and what was found, so that a later run reads only what is new, and one with
nothing new reads no frames at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opentau_prep.artifacts.jsonio import dump_own, load_own
from opentau_prep.errors import DataError, MetadataError
from opentau_prep.stats.columns import Layout
from opentau_prep.stats.compare import Difference
from opentau_prep.stats.faults import UNREADABLE, DataFault
from opentau_prep.stats.moments import Moments
from opentau_prep.stats.sketch import QuantileSketch, decode_sketches, encode_sketches

__all__ = ["LeftAlone", "StatsState"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LeftAlone:
    """What a file was found to be that was left as it is.

    Attributes:
        sha256: Of the file that was compared.
        differences: What is different in it.
        status: As in `FileResult`.
        pooled: As in `FileResult`.
    """

    sha256: str
    differences: tuple[Difference, ...]
    status: str = "differs"
    pooled: Difference | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the verdict JSON-ready."""
        differences = [difference.as_json() for difference in self.differences]
        pooled = None if self.pooled is None else self.pooled.as_json()
        return {
            "sha256": self.sha256,
            "differences": differences,
            "status": self.status,
            "pooled": pooled,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> LeftAlone:
        """Rebuild what `as_json` gave."""
        differences = tuple(Difference.from_json(d) for d in record["differences"])
        pooled = record["pooled"] and Difference.from_json(record["pooled"])
        return cls(record["sha256"], differences, str(record["status"]), pooled)


@dataclass(frozen=True, eq=False)
class StatsState:
    """All that a run leaves behind for the next one.

    Attributes:
        layout: The features.
        frames: How many there are.
        moments: (D,) of all frames.
        quantiles: (Q, D) of all frames.
        method: `exact` or `sketch`: where `quantiles` come from.
        sketch: Of all D dims.
        files: Data file -> its hash.
        digests: Episode -> hash of its values.
        lines: Episode -> hash of its line in a file of lines, as it was left.
        findings: What was wrong.
        verdicts: File name -> what was found in it, for those that were not written.
    """

    layout: Layout
    frames: int
    moments: Moments
    quantiles: Floats
    method: str
    sketch: QuantileSketch
    files: Mapping[str, str]
    digests: Mapping[int, str]
    lines: Mapping[int, str] = field(default_factory=dict)
    findings: tuple[DataFault, ...] = ()
    verdicts: Mapping[str, LeftAlone] = field(default_factory=dict)

    @property
    def left_out(self) -> tuple[int, ...]:
        """The episodes of files that could not be used."""
        return tuple(e for f in self.findings if f.code == UNREADABLE for e in f.episodes)

    def to_bytes(self) -> bytes:
        """Return the file."""
        sketches = {
            name: self.sketch.select(range(where.start, where.stop))
            for name, where in self.layout.slices.items()
        }
        document = {
            **encode_sketches(sketches),
            "layout": self.layout.as_json(),
            "frames": self.frames,
            "quantile_method": self.method,
            "quantiles": self.quantiles,
            "moments": self.moments.as_json(),
            "files": dict(self.files),
            "episodes": {str(e): d for e, d in self.digests.items()},
            "lines": {str(e): d for e, d in self.lines.items()},
            "findings": [finding.as_json() for finding in self.findings],
            "left_alone": {name: v.as_json() for name, v in self.verdicts.items()},
        }
        return dump_own(document)

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> StatsState | None:
        """Read what `to_bytes` gave; None for a file that has only sketches, or is damaged."""
        try:
            document = load_own(data, where=where)
            sketches = decode_sketches(document)
            layout = Layout.from_json(document["layout"])
            return cls(
                layout,
                int(document["frames"]),
                Moments.from_json(document["moments"]),
                np.asarray(document["quantiles"], dtype=np.float64),
                str(document["quantile_method"]),
                QuantileSketch.side_by_side([sketches[name] for name in layout.names]),
                dict(document["files"]),
                {int(e): d for e, d in document["episodes"].items()},
                {int(e): d for e, d in document["lines"].items()},
                tuple(DataFault.from_json(f) for f in document["findings"]),
                {name: LeftAlone.from_json(v) for name, v in document["left_alone"].items()},
            )
        except (MetadataError, DataError, KeyError, TypeError, ValueError, AttributeError):
            return None
