"""Time `opentau-prep --help` beside `python -c "import typer"`: the CLI's share of start-up.

Run: python scripts/bench_help.py [repetitions]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def _median_seconds(command: list[str], repetitions: int) -> float:
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    base = _median_seconds([sys.executable, "-c", "import typer"], repetitions)
    ours = _median_seconds([sys.executable, "-m", "opentau_prep", "--help"], repetitions)
    print(f'python -c "import typer"   {base * 1000:7.1f} ms')
    print(f"opentau-prep --help        {ours * 1000:7.1f} ms   {ours / base:.2f}x (aim: < 2x)")


if __name__ == "__main__":
    main()
