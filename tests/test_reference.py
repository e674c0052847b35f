"""What the tests hold our code against is not our code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted(path.relative_to(HERE) for path in HERE.rglob("*.py"))


def ours(tree: ast.AST) -> dict[str, str]:
    """Names that a file imports from lib_nplora -> what they are called there."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lib_nplora"):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.asname or a.name: a.name for a in node.names if a.name.startswith("lib_nplora")}
    return found


def parsed(path: Path) -> ast.AST:
    return ast.parse((HERE / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "reference"], ids=str)
def test_the_reference_takes_nothing_from_us(path: Path) -> None:
    assert ours(parsed(path)) == {}
    others = {node.module for node in ast.walk(parsed(path)) if isinstance(node, ast.ImportFrom) and node.level > 1}
    assert others == set()


def test_no_test_takes_what_is_private_to_a_file_of_ours() -> None:
    for path in FILES:
        tree = parsed(path)
        names = ours(tree)
        used = [
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names
        ]
        private = [name for name in (*names.values(), *used) if name.startswith("_") and not name.startswith("__")]
        assert private == [], path
