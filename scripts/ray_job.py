r"""Prepare a mixture as a Ray job: one task per part, then the steps that need the whole mixture.

ray job submit --address http://HEAD:8265 --working-dir . -- \
    python scripts/ray_job.py /shared/mixture.json --parts 16 -- --artifact-root /shared/prep

Paths must mean the same on every node. A task whose node is lost is run again by Ray; what it has
finished is skipped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys


def prepare(mixture: str, options: list[str], shard: str | None) -> int:
    """Run `opentau-prep run`, on one part or on the whole; return its exit code."""
    command = [sys.executable, "-m", "opentau_prep", "run", "--mixture-json", mixture, *options]
    return subprocess.run(command + (["--shard", shard] if shard else []), check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mixture")
    parser.add_argument("--parts", type=int, default=4)
    parser.epilog = "Options of `opentau-prep run` come last, after --."
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args, options = parser.parse_args(sys.argv[1:cut]), sys.argv[cut + 1 :]

    import ray

    ray.init(address="auto")
    task = ray.remote(num_cpus=1, max_retries=3)(prepare)
    parts = [f"{number}/{args.parts}" for number in range(1, args.parts + 1)]
    codes = ray.get([task.remote(args.mixture, options, part) for part in parts])
    for part, code in zip(parts, codes, strict=True):
        print(f"part {part}: exit code {code}")
    return max(codes) or prepare(args.mixture, options, None)


if __name__ == "__main__":
    sys.exit(main())
