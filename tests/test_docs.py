"""What README.md and docs/ say of the code is what the code says."""

from __future__ import annotations

import pytest

from .docs import PAGES, PLACE, TABLES, inserted

TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_are_up_to_date(page):
    assert inserted(TEXTS[page]) == TEXTS[page], "run python -m tests.docs"


def test_every_table_stands_in_one_page():
    assert sorted(found[1] for text in TEXTS.values() for found in PLACE.finditer(text)) == sorted(TABLES)
