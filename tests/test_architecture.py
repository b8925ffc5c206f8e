"""The layout holds: who may import whom, how long a module may be, what is public."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import opentau_prep

PACKAGE = Path(opentau_prep.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
# A room may import those to its left, and itself.
ORDER = [
    "text",
    "interruption",
    "errors",
    "trainers",
    "extras",
    "notices",
    "lazy",
    "storage",
    "artifacts",
    "engine",
    "shard",
    "context",
    "config",
    "pooling",
    "metadata",
    "normalization",
    "opentau",
    "frames",
    "stats",
    "heads",
    "speed",
    "tokenizer",
    "val_loss",
    "choices",
    "forecast",
    "validate",
    "verdict",
    "report",
    "diff",
    "demo",
    "pipeline",
    "remake",
    "cli",
]
LONGEST = 400


def _room(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def _imports(path, *, top_level_only=False):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "opentau_prep":
                yield from (f"opentau_prep.{alias.name}" for alias in node.names)


def _typing_only(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in ast.walk(node):
                if isinstance(child, ast.ImportFrom):
                    found.add(child.module)
    return found


def _checked():
    return [p for p in MODULES if _room(p) not in ("__init__", "__main__")]


@pytest.mark.parametrize("path", _checked(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_import_only_what_stands_before_them(path):
    room = _room(path)
    assert room in ORDER, f"a new room {room!r} needs its place in the order"
    typing_only = _typing_only(path)
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "opentau_prep" or len(parts) < 2 or name in typing_only:
            continue
        if parts[1] in opentau_prep._PUBLIC or parts[1] == "__version__":
            continue
        # The context maps with the engine, which is imported when it is used.
        assert ORDER.index(parts[1]) <= ORDER.index(room), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_command_line_draws(path):
    if _room(path) == "cli":
        return
    for name in _imports(path):
        assert name.split(".")[0] not in ("typer", "rich", "click"), path


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_stay_short_and_free_of_private_names_of_others(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST, path
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("opentau_prep"):
            private = [a.name for a in node.names if a.name.startswith("_")]
            assert private in ([], ["__version__"]), f"{path} imports {private}"


def _edges():
    """Return module -> the modules of the package that it imports, anywhere but for types."""
    names = {}
    for path in MODULES:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        names[".".join(("opentau_prep", *parts))] = path
    edges = {}
    for name, path in names.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        guards = [n for n in ast.walk(tree) if isinstance(n, ast.If)]
        typing = [n for n in guards if ast.unparse(n.test) == "TYPE_CHECKING"]
        skipped = {id(child) for n in typing for child in ast.walk(n)}
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and id(node) not in skipped:
                each = (f"{node.module}.{alias.name}" for alias in node.names)
                found |= {full if full in names else node.module for full in each}
        edges[name] = found & names.keys() - {name}
    return edges


def test_no_import_circle_within_a_room():
    edges = _edges()

    def reached(start):
        seen, todo = set(), [start]
        while todo:
            new = edges[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    circles = {name.split(".")[1] for name in edges if name in reached(name)}
    assert circles == set()


def test_public_names_resolve():
    for name in opentau_prep.__all__:
        assert getattr(opentau_prep, name) is not None


def test_torch_is_never_imported():
    for path in MODULES:
        assert not any(n.split(".")[0] == "torch" for n in _imports(path)), path
