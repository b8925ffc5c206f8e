"""One rank of a launched program: makes an artifact with `ensure` and says what it got."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from opentau_prep import notices
from opentau_prep.artifacts import Rank, Recipe, dataset_place, ensure_file
from opentau_prep.artifacts.rank import main_rank_notices
from opentau_prep.errors import PrepError


def build() -> bytes:
    notices.warn("odd_dataset", "this dataset is odd")
    (root / f"built-by-{rank.rank}").write_bytes(b"")
    time.sleep(0.3)
    if mode == "main_dies" and rank.is_main:
        os.kill(os.getpid(), signal.SIGKILL)
    return b"the value\n"


def main() -> None:
    with main_rank_notices(rank):
        notices.warn("odd_dataset", "this dataset is odd")
        made = ensure_file(dataset_place("validation", root), build, Recipe("test", {"n": 1}))
    sys.stdout.write(made.content.decode())


mode, root = sys.argv[1], Path(sys.argv[2])
if mode == "read_only" and os.geteuid() == 0:
    os.setuid(65534)
rank = Rank.detect()
if mode == "read_only":
    root = root / "dataset"
    build = lambda: b"the value\n"  # noqa: E731
try:
    main()
except PrepError as error:
    sys.stderr.write(f"{error}\n")
    sys.exit(error.exit_code)
