"""Translations cover what the page shows, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lib_nplora.methods.table import methods, parameters

from ..hosts.standins.a1111 import A1111
from ..hosts.standins.driver import running
from ..hosts.standins.page import Component

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "localizations"
TEMPLATE = FOLDER / "template.json.txt"
"""Its ending keeps it out of the hosts' lists of languages."""

IN_JAVASCRIPT = {"Use in NP-LoRA", "Use as content", "Use as style"}
NAMES = {"NP-LoRA", *parameters(), *methods()}
"""The same in every language."""


def shown(tmp_path) -> set[str]:
    """Every text of the panel, the settings and the cards' menu."""
    with running(A1111, tmp_path) as host:
        seen = [*Component.made, *host.page.opts.labels.values()]
        hidden = {"role", "Set role", "steps"}
        texts = {text for one in seen for text in one.texts if isinstance(text, str) and re.search("[a-z]", text)}
    return (texts | IN_JAVASCRIPT) - NAMES - hidden


def test_the_template_holds_what_is_shown(tmp_path):
    template = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    assert set(template) == shown(tmp_path)
    assert not any(template.values())


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.name)
def test_a_language_is_complete(path):
    translated = json.loads(path.read_text(encoding="utf-8"))
    assert list(translated) == list(json.loads(TEMPLATE.read_text(encoding="utf-8")))
    assert all(text.strip() for text in translated.values())


def test_the_menu_of_the_cards_shows_these():
    source = (ROOT / "javascript" / "nplora_cards.js").read_text(encoding="utf-8")
    assert '"Use in NP-LoRA"' in source
    assert "`Use as ${role}`" in source
