"""Change one operator or number of a module at a time, and run its nearest tests: do they notice?

    PYTHONPATH=. python scripts/mutate.py opentau_prep/heads/keys.py tests/heads/test_keys.py

Each mutant runs in a fork that has imported everything but the package. Survivors are printed with
their line; a mutant that takes ten times as long as the tests counts as caught.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], None]]]:
    """Yield what can be changed in a node: a name, and a function that changes a copy of it."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            if type(op) in SWAPS:
                new = SWAPS[type(op)]
                yield (
                    f"{type(op).__name__} -> {new.__name__}",
                    lambda n, i=i, new=new: n.ops.__setitem__(i, new()),  # type: ignore[attr-defined]
                )
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPS:
        new = SWAPS[type(node.op)]
        name = f"{type(node.op).__name__} -> {new.__name__}"
        yield name, lambda n, new=new: setattr(n, "op", new())
    elif isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        value = (not node.value) if isinstance(node.value, bool) else node.value + 1
        yield f"{node.value} -> {value}", lambda n, value=value: setattr(n, "value", value)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield (
            "unary -> +",
            lambda n: (
                setattr(n, "op", ast.UAdd())
                if isinstance(
                    n.op,  # type: ignore[attr-defined]
                    ast.USub,
                )
                else setattr(n, "operand", ast.UnaryOp(ast.Not(), n.operand))
            ),
        )  # type: ignore[attr-defined]


def mutants(tree: ast.Module) -> Iterator[tuple[int, str, ast.Module]]:
    """Yield every mutant of a module: line, what was changed, the changed tree."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        # Annotations and types are not behaviour; `from __future__` makes them strings.
        passive = [getattr(node, field, None) for field in ("annotation", "returns")]
        # Nor are decorators (`frozen`, a cache's size) and `zip(..., strict=True)`.
        passive += getattr(node, "decorator_list", [])
        passive += [node.value] if isinstance(node, ast.keyword) and node.arg == "strict" else []
        for each in filter(None, passive):
            skipped.update(id(below) for below in ast.walk(each))
    nodes = list(ast.walk(tree))
    for index, node in enumerate(nodes):
        if id(node) in skipped:
            continue
        for name, change in _changes(node):
            other = copy.deepcopy(tree)
            change(list(ast.walk(other))[index])
            yield node.lineno, name, ast.fix_missing_locations(other)  # type: ignore[attr-defined]


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def exec_module(self, module) -> None:  # type: ignore[no-untyped-def]
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


def survives(module: str, path: Path, tree: ast.Module, tests: list[str], limit_s: float) -> bool:
    """Run the tests in a fork on a changed module; tell whether all of them pass."""
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        sys.meta_path.insert(0, _Mutated(module, path, tree))
        code = 1
        try:
            import pytest

            options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "not slow"]
            code = int(pytest.main([*options, *tests]))
        finally:
            os._exit(code)
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def main() -> int:
    """Print the survivors and the score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", type=Path)
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--most", type=int, default=10**9, help="a random sample of so many")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sys.path[:0] = ["tests", *sorted({str(Path(test).parent) for test in args.tests})]
    for name in ("hypothesis", "numpy", "pyarrow.parquet", "pytest", "typer.testing", "rich"):
        importlib.import_module(name)
    text = args.module.read_text(encoding="utf-8")
    tree = ast.parse(text)
    name = args.module.with_suffix("").as_posix().replace("/", ".")
    started = time.monotonic()
    if not survives(name, args.module, tree, args.tests, 600):
        sys.stderr.write("the tests fail without a change\n")
        return 2
    limit_s = 10 * (time.monotonic() - started) + 5
    found = list(mutants(tree))
    chosen = random.Random(args.seed).sample(found, min(args.most, len(found)))
    left = 0
    for line, what, mutant in sorted(chosen, key=lambda each: each[0]):
        if survives(name, args.module, mutant, args.tests, limit_s):
            left += 1
            print(
                f"{args.module}:{line}: {what}: {text.splitlines()[line - 1].strip()}", flush=True
            )
    caught = len(chosen) - left
    print(f"{args.module}: {caught} of {len(chosen)} caught ({len(found)} mutants)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
