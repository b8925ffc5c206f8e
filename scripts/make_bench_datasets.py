"""Write datasets to measure on.

python scripts/make_bench_datasets.py big  --out bench/small_files --version v2.1
python scripts/make_bench_datasets.py big  --out bench/big_files   --version v3.0 --files 8
python scripts/make_bench_datasets.py many --out bench/mixture     --datasets 5000
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from opentau_prep.demo.many import write_big, write_many
from opentau_prep.errors import PrepError


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    started = time.perf_counter()
    try:
        if args.kind == "big":
            write_big(
                args.out,
                n_frames=args.frames,
                n_episodes=args.episodes,
                version=args.version,
                n_files=args.files,
                dim=args.dim,
            )
        else:
            write_many(
                args.out,
                args.datasets,
                version=args.version,
                n_episodes=args.episodes,
                episode_frames=args.episode_frames,
                dim=args.dim,
                n_robots=args.robots,
                data=args.data,
            )
    except PrepError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{args.out}: written in {time.perf_counter() - started:.1f} s")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    big = kinds.add_parser("big", help="one dataset of many frames")
    big.add_argument("--frames", type=int, default=600_000)
    big.add_argument("--episodes", type=int, default=2_000)
    big.add_argument("--files", type=int, help="v3.0: data files")
    big.add_argument("--dim", type=int, default=14)
    many = kinds.add_parser("many", help="a mixture of many small datasets")
    many.add_argument("--datasets", type=int, default=1_000)
    many.add_argument("--episodes", type=int, default=4)
    many.add_argument("--episode-frames", type=int, default=50)
    many.add_argument("--dim", type=int, default=7)
    many.add_argument("--robots", type=int, default=10)
    many.add_argument("--data", action="store_true", help="write frames too")
    for kind in (big, many):
        kind.add_argument("--out", type=Path, required=True)
        kind.add_argument("--version", choices=["v2.0", "v2.1", "v3.0"], default="v2.1")
    return parser


if __name__ == "__main__":
    sys.exit(main())
