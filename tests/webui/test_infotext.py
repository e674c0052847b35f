"""From a picture's parameters back to prompt and panel."""

from __future__ import annotations

import dataclasses
import sys
import types

import pytest

from lib_nplora.errors import NotFoundError
from lib_nplora.hosts import LoraFile
from lib_nplora.jobs.session import Session
from lib_nplora.webui import running
from lib_nplora.webui.fields import NAMES, PanelState
from lib_nplora.webui.infotext import MARK, enabled, label, on_pasted


class Shelf:
    """A host with LoRAs, hashed."""

    def __init__(self, **hashes: str) -> None:
        self.hashes = hashes
        self.asked: list[str] = []

    def names(self):
        return list(self.hashes)

    def resolve(self, name):
        if name not in self.hashes:
            raise NotFoundError(f"there is no LoRA called '{name}'.")
        return LoraFile(name, f"/{name}", name, self.hashes[name], None)

    def listed(self):
        return [types.SimpleNamespace(name=name, alias=name, path=f"/{name}") for name in self.hashes]

    def named_by_hash(self, shorthash, seconds):
        self.asked.append(shorthash)
        return next((name for name, known in self.hashes.items() if known == shorthash), None)


@pytest.fixture
def shelf():
    shelf = Shelf(dog="d0", vangogh="f0", hund2="d1")
    running.start(Session(shelf))
    yield shelf
    running.stop()


def pasted(prompt: str, **params) -> dict:
    params = {"Prompt": prompt, "Steps": "20", **{name.replace("_", " "): value for name, value in params.items()}}
    on_pasted("", params)
    return params


def panel(params: dict) -> PanelState | None:
    return PanelState(**{name: params[label(name)] for name in NAMES}) if label("mu") in params else None


def test_a_picture_without_us_switches_the_panel_off_and_changes_nothing_else(shelf):
    params = pasted("a cat <lora:dog:1>")
    assert params == {"Prompt": "a cat <lora:dog:1>", "Steps": "20"}
    assert not enabled(params)
    assert enabled(pasted("<nplora:dog:vangogh>", **{MARK: "panel"}))
    assert not enabled(pasted("<nplora:dog:vangogh>"))


def test_the_panels_own_tag_goes_back_into_the_panel(shelf):
    params = pasted("a cat <nplora:x:y:1> <nplora:dog:vangogh:hard:c=0.9:k=8>", **{MARK: "panel"})
    assert params["Prompt"] == "a cat <nplora:x:y:1>"
    assert panel(params) == PanelState(True, "dog", "vangogh", hard=True, content_weight=0.9, k="8")


def test_a_typed_tag_stays_and_is_shown(shelf):
    prompt = "a cat <nplora:dog:vangogh:2:te=0>"
    params = pasted(prompt)
    assert params["Prompt"] == prompt
    assert panel(params) == PanelState(False, "dog", "vangogh", 2.0, te=False)


def test_typed_roles_stay_and_are_shown(shelf):
    prompt = "<lora:dog:0.8:role=content> <lora:vangogh:1:role=style:mu=2>"
    params = pasted(prompt)
    assert params["Prompt"] == prompt
    assert panel(params) == PanelState(False, "dog", "vangogh", 2.0, content_weight=0.8)


def test_the_hires_prompt_is_restored_as_well(shelf):
    params = pasted("a <nplora:dog:vangogh:1>", **{MARK: "panel", "Hires_prompt": "b <nplora:dog:vangogh:1>"})
    assert params["Prompt"] == "a"
    assert params["Hires prompt"] == "b"


def test_renamed_loras_are_found_by_their_hashes(shelf):
    params = pasted("<nplora:hund:gone:1>", Lora_hashes="hund: d1, gone: 77, vangogh: f0")
    assert params["Prompt"] == "<nplora:hund2:gone:1>"
    assert panel(params).content == "hund2"
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
    assert panel(pasted("<nplora:dog:vangogh:1>", Lora_hashes="dog: d1")) == PanelState(False, "dog", "vangogh", 1.0)


def test_labels_are_distinct_from_the_mark():
    assert len({MARK, *map(label, NAMES)}) == 1 + len(dataclasses.fields(PanelState))
