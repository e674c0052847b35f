"""From a picture's parameters back to prompt and panel."""

from __future__ import annotations

import sys
import types

import pytest

from lib_nplora.errors import NotFoundError
from lib_nplora.hosts import Host, ShelfFile
from lib_nplora.jobs.session import Session
from lib_nplora.webui import running
from lib_nplora.webui.fields import PanelState, fields
from lib_nplora.webui.infotext import MARK, enabled, label, on_pasted


class Shelf:
    """LoRAs, hashed."""

    def __init__(self, **hashes: str) -> None:
        self.hashes = hashes
        self.asked: list[str] = []

    def names(self):
        return list(self.hashes)

    def resolve(self, name):
        if name not in self.hashes:
            raise NotFoundError(f"there is no LoRA called '{name}'.")
        return ShelfFile(name, f"/{name}", name, self.hashes[name], None)

    def listed(self):
        return [types.SimpleNamespace(name=name, alias=name, path=f"/{name}") for name in self.hashes]

    def named_by_hash(self, shorthash, seconds):
        self.asked.append(shorthash)
        return next((name for name, known in self.hashes.items() if known == shorthash), None)


def host_of(shelf: Shelf) -> Host:
    """A host that makes no pictures."""
    return Host("stand-in", model=None, shelf=shelf)


@pytest.fixture
def shelf():
    shelf = Shelf(dog="d0", vangogh="f0", hund2="d1")
    running.start(Session(host_of(shelf)))
    yield shelf
    running.stop()


def pasted(prompt: str, **params) -> dict:
    params = {"Prompt": prompt, "Steps": "20", **{name.replace("_", " "): value for name, value in params.items()}}
    on_pasted("", params)
    return params


def panel(params: dict) -> PanelState | None:
    return PanelState({name: params[label(name)] for name in fields()}) if label("mu") in params else None


def shown(enabled: bool, content: str, style: str, **others) -> PanelState:
    return PanelState.with_values(enabled=enabled, content=content, style=style, **others)


def test_a_picture_without_us_switches_the_panel_off_and_changes_nothing_else(shelf):
    params = pasted("a cat <lora:dog:1>")
    assert params == {"Prompt": "a cat <lora:dog:1>", "Steps": "20"}
    assert not enabled(params)
    assert enabled(pasted("<nplora:dog:vangogh>", **{MARK: "panel"}))
    assert not enabled(pasted("<nplora:dog:vangogh>"))


def test_the_panels_own_tag_goes_back_into_the_panel(shelf):
    params = pasted("a cat <nplora:x:y:1> <nplora:dog:vangogh:hard:c=0.9:k=8>", **{MARK: "panel"})
    assert params["Prompt"] == "a cat <nplora:x:y:1>"
    assert panel(params) == shown(True, "dog", "vangogh", hard=True, content_weight=0.9, k="8")


def test_a_typed_tag_stays_and_is_shown(shelf):
    prompt = "a cat <nplora:dog:vangogh:2:te=0>"
    params = pasted(prompt)
    assert params["Prompt"] == prompt
    assert panel(params) == shown(False, "dog", "vangogh", mu=2.0, te=False)


def test_typed_roles_stay_and_are_shown(shelf):
    prompt = "<lora:dog:0.8:role=content> <lora:vangogh:1:role=style:mu=2>"
    params = pasted(prompt)
    assert params["Prompt"] == prompt
    assert panel(params) == shown(False, "dog", "vangogh", mu=2.0, content_weight=0.8)


def test_the_hires_prompt_is_restored_as_well(shelf):
    params = pasted("a <nplora:dog:vangogh:1>", **{MARK: "panel", "Hires_prompt": "b <nplora:dog:vangogh:1>"})
    assert params["Prompt"] == "a"
    assert params["Hires prompt"] == "b"


def test_renamed_loras_are_found_by_their_hashes(shelf):
    params = pasted("<nplora:hund:gone:1>", Lora_hashes="hund: d1, gone: 77, vangogh: f0")
    assert params["Prompt"] == "<nplora:hund2:gone:1>"
    assert panel(params)["content"] == "hund2"
    roles = pasted("<lora:hund:1:role=content> <lora:vangogh:1:role=style>", Lora_hashes="hund: d1, vangogh: f0")
    assert roles["Prompt"] == "<lora:hund2:1:role=content> <lora:vangogh:1:role=style>"


def test_each_name_is_looked_for_once(shelf):
    prompt = "<nplora:gone:vangogh:1>"
    pasted(prompt, **{"Hires_prompt": prompt, "Lora_hashes": "gone: 77, vangogh: f0"})
    assert shelf.asked == ["77"]


def test_styles_are_recognised_behind_the_panels_tag(shelf, monkeypatch):
    """The host's own way of taking a style from the end of a prompt, which our tag hides."""

    def extract(prompt, negative):
        stem = prompt.removesuffix(", art")
        return (["artful"], stem, negative) if stem != prompt else ([], prompt, negative)

    shared = types.SimpleNamespace(
        opts=types.SimpleNamespace(infotext_styles="Apply if any"),
        prompt_styles=types.SimpleNamespace(extract_styles_from_prompt=extract),
    )
    monkeypatch.setitem(sys.modules, "modules", types.ModuleType("modules"))
    monkeypatch.setitem(sys.modules, "modules.shared", shared)
    prompt = "a cat, art <nplora:dog:vangogh:1>"
    params = pasted(prompt, **{MARK: "panel"})
    assert (params["Prompt"], params["Styles array"]) == ("a cat", ["artful"])
    assert pasted(prompt)["Prompt"] == prompt
    shared.opts.infotext_styles = "Ignore"
    assert pasted(prompt, **{MARK: "panel"})["Prompt"] == "a cat, art"


def test_a_name_that_means_another_file_now_is_found_by_its_hash(shelf):
    assert pasted("<nplora:dog:vangogh:1>", Lora_hashes="dog: d1")["Prompt"] == "<nplora:hund2:vangogh:1>"
    assert pasted("<nplora:dog:vangogh:1>", Lora_hashes="dog: d0")["Prompt"] == "<nplora:dog:vangogh:1>"


def test_a_tag_that_cannot_be_read_is_left_alone(shelf):
    assert pasted("a <nplora:dog>", **{MARK: "panel"})["Prompt"] == "a <nplora:dog>"


def test_without_a_host_the_tag_still_fills_the_panel(monkeypatch):
    monkeypatch.setattr(running, "detect_host", lambda: None)
    assert panel(pasted("<nplora:dog:vangogh:1>", Lora_hashes="dog: d1")) == shown(False, "dog", "vangogh", mu=1.0)


def test_labels_are_distinct_from_the_mark():
    assert len({MARK, *map(label, fields())}) == 1 + len(fields())


def test_exceptions_by_block_come_back(shelf):
    tag = "<nplora:dog:vangogh:0.5,mid@2,out@hard:c=1,in@0.6:s=0.9,out1@0>"
    assert panel(pasted(f"a {tag}", **{MARK: "panel"})) == shown(
        True,
        "dog",
        "vangogh",
        mu=0.5,
        mu_by_block="mid@2,out@hard",
        content_by_block="in@0.6",
        style_weight=0.9,
        style_by_block="out1@0",
    )
    hard = panel(pasted("<nplora:dog:vangogh:hard,mid@2>"))
    assert (hard["hard"], hard["mu_by_block"]) == (True, "mid@2")


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("<nplora:dog:vangogh:0.5:method=klora:alpha=2>", {"method": "klora", "alpha": "2"}),
        ("<nplora:dog:vangogh:2:method=klora*:scope=all>", {"method": "klora*", "scope": "all", "mu": 2.0}),
        ("<nplora:dog:vangogh:hard:k=8:method=dare:seed=3>", {"method": "dare", "seed": "3", "hard": True, "k": "8"}),
        (
            "<nplora:dog:vangogh:0.25:te=0:k=90%:method=direct>",
            {"method": "direct", "te": False, "k": "90%", "mu": 0.25},
        ),
    ],
)
def test_a_picture_of_an_older_version_whose_tag_has_a_mu_that_its_method_does_not_read(shelf, tag, values):
    params = pasted(f"a cat {tag}", **{MARK: "panel"})
    assert params["Prompt"] == "a cat"
    assert panel(params) == shown(True, "dog", "vangogh", **values)


def test_a_tag_of_an_unknown_method_stays_in_the_prompt_and_the_panel_names_it(shelf):
    prompt = "a cat <nplora:dog:vangogh:2:method=klorra>"
    params = pasted(prompt)
    assert params["Prompt"] == prompt
    state = panel(params)
    assert (state["content"], state["style"], state["mu"], state["method"]) == ("dog", "vangogh", 2.0, "klorra")
    assert not enabled(params)
