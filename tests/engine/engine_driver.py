"""A program with a running map, to be interrupted from outside."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from opentau_prep.artifacts.atomic import replacing
from opentau_prep.engine import get_engine, map_ordered


def write_for_ever(number: int) -> None:
    with replacing(folder / f"artifact-{number}.bin") as pending:
        while True:
            pending.file.write(b"x" * 10_000)
            pending.file.flush()
            time.sleep(0.001)


folder = Path(sys.argv[1])

if __name__ == "__main__":
    engine = get_engine(*sys.argv[2:], workers=2)
    try:
        map_ordered(write_for_ever, range(6), labels=list("abcdef"), engine=engine)
    except KeyboardInterrupt:
        sys.stdout.write("interrupted\n")
        sys.exit(130)
