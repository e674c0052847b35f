"""Translations cover what the page shows, and nothing else."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path

import pytest

from lib_nplora.findings.sentences import findings
from lib_nplora.jobs.pair import NOTHING_MEETS, PLAIN_MERGE
from lib_nplora.methods.parameter import Strength
from lib_nplora.methods.table import methods, parameters
from lib_nplora.webui.words import of_language

from ..hosts.standins.a1111 import A1111
from ..hosts.standins.driver import running
from ..hosts.standins.page import Component

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "localizations"
TEMPLATE = FOLDER / "template.json.txt"
"""Its ending keeps it out of the hosts' lists of languages."""

NO_METHOD = "there is no such method"
HINT = "Press Inspect to learn what the two do to each other."
IN_JAVASCRIPT = {"Use in NP-LoRA", "Use as content", "Use as style"}
NAMES = {"NP-LoRA", *parameters(), *methods()}
"""The same in every language."""


def shown(tmp_path) -> set[str]:
    """Every text of the panel, the settings and the cards' menu."""
    with running(A1111, tmp_path) as host:
        seen = [*Component.made, *host.page.opts.labels.values()]
        hidden = {"role", "Set role", "steps", "dark", "blocks_known", "restored"} | {
            f"{name}_{box}" for name in ("tag", "verdict") for box in ("question", "answer")
        }
        texts = {text for one in seen for text in one.texts if isinstance(text, str) and re.search("[a-z]", text)}
    told = {one.about for one in methods().values()} | {NO_METHOD, HINT} | sentences()
    recipes = {one.widget.recipe for one in parameters().values() if isinstance(one.widget, Strength)}
    return (texts | told | recipes | IN_JAVASCRIPT) - NAMES - hidden


def sentences() -> set[str]:
    """Every sentence of the findings, with the names of its values."""
    tree = ast.parse(Path(inspect.getsourcefile(findings)).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "say"]
    texts = {node.args[0].value for node in calls if isinstance(node.args[0], ast.Constant)}
    return {text for text in texts if re.search("[a-z]", re.sub(r"\{\w+\}", "", text))} | {PLAIN_MERGE, NOTHING_MEETS}


def test_the_template_holds_what_is_shown(tmp_path):
    template = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    assert set(template) == shown(tmp_path)
    assert not any(template.values())


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.name)
def test_a_language_is_complete(path):
    translated = json.loads(path.read_text(encoding="utf-8"))
    assert list(translated) == list(json.loads(TEMPLATE.read_text(encoding="utf-8")))
    assert all(text.strip() for text in translated.values())


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.name)
def test_a_language_keeps_the_values_of_each_sentence(path):
    for english, other in json.loads(path.read_text(encoding="utf-8")).items():
        assert sorted(re.findall(r"\{\w+\}", other)) == sorted(re.findall(r"\{\w+\}", english)), english


def test_the_hosts_language_is_read(tmp_path):
    with running(A1111, tmp_path) as host:
        assert of_language() == {}
        host.page.words["diffusion model"] = "Diffusionsmodell"
        assert of_language() == {"diffusion model": "Diffusionsmodell"}


def test_the_menu_of_the_cards_shows_these():
    source = (ROOT / "javascript" / "nplora_cards.js").read_text(encoding="utf-8")
    assert '"Use in NP-LoRA"' in source
    assert "`Use as ${role}`" in source
