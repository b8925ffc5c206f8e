"""Print the size and the shape of the package, for comparing two checkouts.

    python scripts/measure_code.py [CHECKOUT ...]

Lines, modules, classes, functions over 50 lines, comments per 100 lines of code, the command
function with most lines and its parameters, and how often words occur that the project's English
avoids: in all of the package, README and docs, and among them in strings that users may see.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

RETIRED = re.compile(
    r"\b(told|stands?|mend(?:s|ed)?|beside|of ours|of yours|said|made again|makes? again|is to be"
    r"|kept beside|a our)\b",
    re.IGNORECASE,
)
LONG = 50


def main(checkouts: list[Path]) -> None:
    """Print one column per checkout."""
    columns = [measure(checkout) for checkout in checkouts]
    width = max(len(name) for name in columns[0])
    for name in columns[0]:
        print(f"{name:{width}}  " + "  ".join(f"{column[name]:>12}" for column in columns))


def measure(checkout: Path) -> dict[str, str]:
    """Return what is measured, by name."""
    package = sorted((checkout / "opentau_prep").rglob("*.py"))
    texts = {path: path.read_text(encoding="utf-8") for path in package}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    functions = [
        (path, node)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    classes = sum(isinstance(n, ast.ClassDef) for tree in trees.values() for n in ast.walk(tree))
    lines = sum(text.count("\n") for text in texts.values())
    comments = sum(1 for text in texts.values() for _ in comments_of(text))
    commands = [(length(node), node) for path, node in functions if path.parent.name == "cli"]
    longest, command = max(commands, key=lambda pair: pair[0])
    arguments = command.args
    parameters = len(arguments.args) + len(arguments.kwonlyargs)
    documents = [checkout / "README.md", *sorted((checkout / "docs").rglob("*.md"))]
    prose = "".join(path.read_text(encoding="utf-8") for path in documents)
    everywhere = len(RETIRED.findall("".join(texts.values()) + prose))
    visible = sum(len(RETIRED.findall(text)) for tree in trees.values() for text in strings(tree))
    return {
        "lines": f"{lines:,}",
        "modules": f"{len(package):,}",
        "classes": f"{classes:,}",
        "functions": f"{len(functions):,}",
        f"functions over {LONG} lines": f"{sum(length(node) > LONG for _, node in functions):,}",
        "comments per 100 lines": f"{100 * comments / lines:.1f}",
        "longest function in cli": f"{longest} lines",
        "its parameters": str(parameters),
        "retired words": f"{everywhere:,}",
        "retired words in strings and docs": f"{visible + len(RETIRED.findall(prose)):,}",
    }


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return a function's lines, its docstring left out."""
    docstring = ast.get_docstring(node, clean=False)
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    return total - (0 if docstring is None else docstring.count("\n") + 1)


def comments_of(text: str) -> Iterator[str]:
    """Yield the comments that are no instructions to a checker."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not re.match(r"#\s*(noqa|type:|fmt:)", token.string):
            yield token.string


def strings(tree: ast.Module) -> Iterator[str]:
    """Yield the strings that are no docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.value


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]] or [Path(__file__).parents[1]])
