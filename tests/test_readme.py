"""What the README says of the code is what the code says."""

from __future__ import annotations

from pathlib import Path

from . import readme

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_tables_of_methods_are_up_to_date():
    assert readme.inserted(README) == README, "run python -m tests.readme"
