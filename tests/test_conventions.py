"""The table of conventions names what exists, and those that are a matter of spelling are kept."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
TABLE = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
ROWS = [line.strip("| \n").split(" | ") for line in TABLE.splitlines() if re.match(r"\| \d", line)]


def test_there_are_enough_rows_each_once():
    assert len({row[1] for row in ROWS}) == len(ROWS) >= 40
    assert all(len(row) == 4 for row in ROWS)


def test_every_named_place_exists():
    named = {
        re.split("::", name)[0]
        for row in ROWS
        for name in re.findall(r"`([\w./]+\.(?:py|js|css)(?:::\w+)?)`", " ".join(row[2:]))
    }
    folders = (ROOT, ROOT / "lib_nplora", HERE, HERE / "webui")
    assert [name for name in named if not any((folder / name).exists() for folder in folders)] == []


def test_every_named_test_exists():
    there = set(re.findall(r"def (test_\w+)", "".join(path.read_text(encoding="utf-8") for path in HERE.rglob("*.py"))))
    named = {name for row in ROWS for name in re.findall(r"\b(test_\w+)(?![\w./])", row[3])}
    assert named - there == set()
    assert len(named) > 20


def test_nothing_prints_but_the_command_line():
    for path in (ROOT / "lib_nplora").rglob("*.py"):
        called = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        }
        assert "print" not in called or path.parent.name == "command_line", path


def test_global_names_in_javascript_carry_our_prefix():
    for path in (ROOT / "javascript").glob("*.js"):
        names = re.findall(
            r"^(?:async )?(?:function|const|let|var|class) (\w+)", path.read_text(encoding="utf-8"), re.M
        )
        assert names
        assert [name for name in names if not name.startswith("nplora")] == [], path


FOLDERS = ("lib_nplora", "lab", "scripts", "tests")
BARE = re.compile(r"\A(?:Of|By) |^ *[\w*, ]+\n +(?:Of|By) ", re.M)
"""What begins so, a docstring or what it says of a field, does not say what the thing is."""


def test_docstrings_say_what_a_thing_is():
    """Also strings below a constant. None begins with a bare `Of` or `By`."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if BARE.search(node.value.value)
    ]
    assert found == []
    assert all(map(BARE.search, ("Of all layers.", "A thing.\n\n    name\n        Of its layer.\n    ")))
