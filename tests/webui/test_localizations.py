"""Translations cover what the page shows, and nothing else."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from lib_nplora.errors import FileError, Remedy
from lib_nplora.jobs.job import PLAIN_MERGE
from lib_nplora.jobs.pair import NOTHING_MEETS
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


SAYING = ("webui/inspect_fold.py", "webui/save_fold.py", "webui/tag_line.py", "webui/work.py", "findings/sentences.py")
"""Where sentences are put together that the panel shows."""

REFUSING = (
    *("files/sizing.py", "findings/plots.py", "jobs/job.py", "jobs/new_file.py", "jobs/pair.py"),
    *("files/refusals.py::two_models", "request/tag.py::check_name"),
    *("layers/block.py", "layers/by_block.py", "maths/rank_rule.py"),
    *(
        "methods/blocks.py",
        "methods/parameter.py",
        "methods/rar.py",
        "methods/table.py",
        "methods/texts.py",
        "methods/turns.py",
    ),
    *("webui/fields.py", "webui/new_file.py", "webui/running.py", "webui/tag_line.py", "webui/verdicts.py"),
    *("methods/turns.py", "request/request.py", "webui/work.py"),
)
"""Where it is refused what the panel asks for, but for what is wrong inside of a LoRA's file."""

INSIDE = {"{key}={value} is not a number"}
"""What stands inside of other sentences alone, as it stands there."""


def sentences() -> set[str]:
    """Every sentence that is put together for the panel, with `{name}` for what differs from case to case."""
    said = {template(call.args[0]) for path in SAYING for call in calls(path, "say")}
    losses = {template(node) for node in ast.walk(part("jobs/pair.py::losses_told")) if isinstance(node, ast.JoinedStr)}
    return words_in(said | losses | refusals() | drawn()) | {PLAIN_MERGE, NOTHING_MEETS}


def refusals() -> set[str | None]:
    """Why the panel is refused, with the hints and remedies in it."""
    hint = part("errors.py::did_you_mean")
    found = {*INSIDE, *(template(node) for node in ast.walk(hint) if isinstance(node, ast.JoinedStr))}
    for path in REFUSING:
        constants = named_texts(path)
        for call in (
            call for call in calls(path, "Error") if ast.unparse(call.func) not in ("TypeError", "ValueError")
        ):
            found.add(template(call.args[0], constants))
            found |= {template(one.args[-1]) for one in call.args[1:] if isinstance(one, ast.Call)}
        hints = [node.value for node in ast.walk(part(path)) if isinstance(node, ast.Assign) and is_hint(node)]
        found |= {template(node) for hint in hints for node in ast.walk(hint) if isinstance(node, ast.JoinedStr)}
    return found


def drawn() -> set[str | None]:
    """What stands in the plots of a page, but for names of layers."""
    path = "findings/plots.py"
    labels = [
        keyword.value
        for node in ast.walk(part(path))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg in ("label", "xlabel", "ylabel")
    ]
    return {template(node) for node in (*labels, *(call.args[0] for call in calls(path, "set_title")))}


def part(path: str) -> ast.AST:
    """A module, or the function of it that is named behind `::`."""
    file, _, function = path.partition("::")
    parsed = ast.parse((ROOT / "lib_nplora" / file).read_text(encoding="utf-8"))
    if not function:
        return parsed
    return next(node for node in parsed.body if isinstance(node, ast.FunctionDef) and node.name == function)


def calls(path: str, ending: str) -> list[ast.Call]:
    """Calls of whatever has a name with that ending."""
    found = [node for node in ast.walk(part(path)) if isinstance(node, ast.Call)]
    return [call for call in found if ast.unparse(call.func).endswith(ending) and call.args]


def is_hint(node: ast.Assign) -> bool:
    return ast.unparse(node.targets[0]) in ("hint", "decimals")


def named_texts(path: str) -> dict[str, str]:
    """The texts that have names in a module."""
    body = ast.parse((ROOT / "lib_nplora" / path.partition("::")[0]).read_text(encoding="utf-8")).body
    named = [node for node in body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)]
    return {ast.unparse(node.targets[0]): node.value.value for node in named if isinstance(node.value.value, str)}


def template(node: ast.expr, constants: Mapping[str, str] = MappingProxyType({})) -> str | None:
    """A text with `{name}` for what differs from case to case; None for what is put together elsewhere."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if not isinstance(node, ast.JoinedStr):
        return None
    pieces: list[str] = []
    for one in node.values:
        if isinstance(one, ast.Constant):
            pieces.append(one.value)
            continue
        assert isinstance(one, ast.FormattedValue)
        name = one.value.id if isinstance(one.value, ast.Name) else "value"
        before = sum(piece.startswith(f"{{{name}") for piece in pieces)
        pieces.append(constants.get(name, f"{{{name}{before + 1 if before else ''}}}"))
    return "".join(pieces)


def words_in(texts: Iterable[str | None]) -> set[str]:
    """Those that are more than names and numbers."""
    return {text for text in texts if text and re.search("[A-Za-z]{3}", re.sub(r"\{\w+\}", "", text))}


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


def test_the_panel_speaks_the_hosts_language(tmp_path):
    with running(A1111, tmp_path) as host:
        host.page.words |= json.loads((FOLDER / "de_DE.json").read_text(encoding="utf-8"))
        tag_line, work = (importlib.import_module(f"lib_nplora.webui.{name}") for name in ("tag_line", "work"))
        assert tag_line.shown([True]) == "Noch kein Tag: ein Inhalts-LoRA und ein Stil-LoRA wählen"
        assert tag_line.shown([True, "dgo", "vangogh"]).startswith("Noch kein Tag: es gibt kein LoRA namens 'dgo'.")

        def fail() -> str:
            raise FileError("the fused layer 3 has no small rank", Remedy("", "", "choose a size such as 32"))

        refused = work.told(fail, str)
    assert refused == "die verschmolzene Schicht 3 hat keinen kleinen Rang: eine Größe wie 32 wählen"


def test_the_menu_of_the_cards_shows_these():
    source = (ROOT / "javascript" / "nplora_cards.js").read_text(encoding="utf-8")
    assert '"Use in NP-LoRA"' in source
    assert "`Use as ${role}`" in source
