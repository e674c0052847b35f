"""Translations cover what the page shows, and nothing else."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from lib_nplora.errors import FileError, Remedy
from lib_nplora.files.models import families
from lib_nplora.fusion.outcome import Summary
from lib_nplora.fusion.walk import NO_INPUT_SIDE
from lib_nplora.jobs.job import NO_ACCELERATOR, PLAIN_MERGE, Remark
from lib_nplora.jobs.pair import NOTHING_MEETS, FileFusion
from lib_nplora.methods.parameter import Strength
from lib_nplora.methods.rar import NAME_IT, PUBLISHED
from lib_nplora.methods.table import methods, parameters
from lib_nplora.webui.words import of_language
from lib_nplora.webui.words import remarks as remarks_told

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


SAYING = (
    *("webui/inspect_fold.py", "webui/save_fold.py", "webui/tag_line.py", "webui/work.py"),
    *("findings/sentences.py", "findings/sides.py"),
)
"""Where sentences are put together that the panel shows."""

REFUSING = (
    *("files/base.py", "files/pairs.py", "files/sizing.py", "files/tensor_file.py", "files/writer.py"),
    *("files/models/tables.py", "files/models/transformers.py", "files/models/unets.py"),
    *("fusion/walk.py::_check_shapes", "findings/plots.py", "jobs/job.py", "jobs/new_file.py", "jobs/pair.py"),
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

REMARKING = ("jobs/job.py", "jobs/file_remarks.py", "jobs/session.py")
"""Where functions make remarks on the fusion of two files."""

REMARKED = (
    *("files/pairs.py::_doubt", "fusion/outcome.py::__str__"),
    *("methods/turns.py::_remarks", "request/request.py::remarks"),
)
"""Where it is put together what other remarks hold, or are."""

INSIDE = {"{key}={value} is not a number"}
"""What stands inside of other sentences alone, as it stands there."""


def sentences() -> set[str]:
    """Every sentence that is put together for the panel, with `{name}` for what differs from case to case."""
    said = {template(call.args[0]) for path in SAYING for call in calls(path, "say")}
    losses = joined(part("jobs/pair.py::losses_told"))
    return words_in(said | losses | refusals() | remarks() | drawn()) | {PLAIN_MERGE, NOTHING_MEETS}


def refusals() -> set[str | None]:
    """Why the panel is refused, with the hints and remedies in it."""
    found = {*INSIDE, *joined(part("errors.py::did_you_mean"))}
    for path in REFUSING:
        constants = named_texts(path)
        for call in (
            call for call in calls(path, "Error") if ast.unparse(call.func) not in ("TypeError", "ValueError")
        ):
            found.add(template(call.args[0], constants))
            found |= {template(one.args[-1]) for one in call.args[1:] if isinstance(one, ast.Call)}
            found |= {constant(path, one.id).on("WebUI") for one in call.args[1:] if isinstance(one, ast.Name)}
        hints = [node.value for node in ast.walk(part(path)) if isinstance(node, ast.Assign) and is_hint(node)]
        found |= {text for hint in hints for text in joined(hint)}
    return found


def remarks() -> set[str | None]:
    """What is said of a fusion, with the remedies, and with what stands in other remarks."""
    found = {NO_ACCELERATOR.on("WebUI"), NO_INPUT_SIDE}
    for path in REMARKING:
        functions = [node for node in ast.walk(part(path)) if isinstance(node, ast.FunctionDef)]
        found |= {text for one in functions if "Remark(" in ast.unparse(one) for text in joined(one)}
    for path in REMARKED:
        returned = [node.value for node in ast.walk(part(path)) if isinstance(node, ast.Return)]
        found |= joined(part(path)) | {template(one) for one in returned if isinstance(one, ast.Constant) and one.value}
    return found | {told for family in families() for told in family.readers.values()}


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
    """A module, or the first function in it of the name behind `::`."""
    file, _, function = path.partition("::")
    parsed = ast.parse((ROOT / "lib_nplora" / file).read_text(encoding="utf-8"))
    if not function:
        return parsed
    return next(node for node in ast.walk(parsed) if isinstance(node, ast.FunctionDef) and node.name == function)


def joined(node: ast.AST) -> set[str | None]:
    """All texts with values in it."""
    return {template(one) for one in ast.walk(node) if isinstance(one, ast.JoinedStr)}


def calls(path: str, ending: str) -> list[ast.Call]:
    """Calls of whatever has a name with that ending."""
    found = [node for node in ast.walk(part(path)) if isinstance(node, ast.Call)]
    return [call for call in found if ast.unparse(call.func).endswith(ending) and call.args]


def is_hint(node: ast.Assign) -> bool:
    return ast.unparse(node.targets[0]) in ("hint", "decimals")


def constant(path: str, name: str) -> Any:
    """What has that name in a module."""
    module = path.partition(".py")[0].replace("/", ".")
    return getattr(importlib.import_module(f"lib_nplora.{module}"), name)


def named_texts(path: str) -> dict[str, str]:
    """The texts that have names in a module."""
    body = ast.parse((ROOT / "lib_nplora" / path.partition("::")[0]).read_text(encoding="utf-8")).body
    named = [node for node in body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)]
    return {ast.unparse(node.targets[0]): node.value.value for node in named if isinstance(node.value.value, str)}


def template(node: ast.expr, constants: Mapping[str, str] = MappingProxyType({})) -> str | None:
    """A text with `{name}` for what differs from case to case; None for what is put together elsewhere."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name):
        return constants.get(node.id)
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

        def refused(problem: str, remedy: Remedy) -> str:
            def fail() -> str:
                raise FileError(problem, remedy)

            return work.told(fail, str)

        small = refused("the fused layer 3 has no small rank", Remedy("", "", "choose a size such as 32"))
        assert small == "die verschmolzene Schicht 3 hat keinen kleinen Rang: eine Größe wie 32 wählen"
        assert refused(PUBLISHED, NAME_IT).endswith(
            "nicht für kommerzielle Zwecke): herunterladen und die eigene Kopie in den Einstellungen des WebUI nennen, "
            "NP-LoRA: Hypernetz"
        )


@pytest.mark.parametrize(
    ("remark", "told"),
    [
        (
            Remark("'a b' looks like an accelerator LoRA (LCM), which is no style", NO_ACCELERATOR),
            "'a b' sieht nach einem Beschleuniger-LoRA aus (LCM), also nicht nach style: dafür ein gewöhnliches "
            "<lora:...> verwenden",
        ),
        (
            Remark(
                "not everything could be fused: 1 layers fused, 2 content only, 3 style only, 4 added unprojected "
                "(norms and biases have no input side), 5 left out, 6 not matched; 7.00 % of the content's energy "
                "removed"
            ),
            "nicht alles konnte verschmolzen werden: 1 Schichten verschmolzen, 2 nur Inhalt, 3 nur Stil, 4 unverändert "
            "addiert (Normen und Biases haben keine Eingangsseite), 5 weggelassen, 6 ohne Schicht im Modell; 7.00 % "
            "der Energie des Inhalts weggenommen",
        ),
        (
            Remark(
                "not everything could be fused: 1 layers fused, 0 content only, 0 style only, 4 added unprojected, 0 "
                "not matched; 7.00 % of the content's energy removed"
            ),
            "nicht alles konnte verschmolzen werden: 1 Schichten verschmolzen, 0 nur Inhalt, 0 nur Stil, 4 unverändert "
            "addiert, 0 ohne Schicht im Modell; 7.00 % der Energie des Inhalts weggenommen",
        ),
        (
            Remark("in kohya's spelling LoRAs for Anima are read by Forge Neo and ComfyUI, not by diffusers"),
            "in kohya's Schreibweise werden LoRAs für Anima gelesen von Forge Neo und ComfyUI, nicht von diffusers",
        ),
    ],
    ids=["remedy", "all of a summary", "a short summary", "readers"],
)
def test_remarks_are_in_the_hosts_language(remark, told):
    german = json.loads((FOLDER / "de_DE.json").read_text(encoding="utf-8"))
    fusion = FileFusion(Summary({}), (remark,))
    assert remarks_told(fusion, german) == [told]
    assert remarks_told(fusion, {}) == [remark.told("WebUI")]


def test_the_menu_of_the_cards_shows_these():
    source = (ROOT / "javascript" / "nplora_cards.js").read_text(encoding="utf-8")
    assert '"Use in NP-LoRA"' in source
    assert "`Use as ${role}`" in source
