"""The way back from a picture's parameters."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from .panel import Panel
from .webui import ODD

FULL = f"<nplora:{ODD}:hat:2:c=0.85:s=1.1:te=0:k=90%>"


def _fill_all(panel):
    panel.choose_pair()
    panel.choose("content", ODD)
    panel.choose("style", "hat")
    panel.type_into("mu", "2")
    panel.type_into("content_weight", "0.85")
    panel.type_into("style_weight", "1.1")
    panel.tick("te", False)
    panel.choose("k", "90%")
    expect(panel.tag).to_have_value(FULL)


def _another_page(panel, webui) -> Panel:
    page = panel.page.context.new_page()
    webui.open(page)
    return Panel(page, "txt2img")


def test_what_the_panel_made_it_gets_back(panel, webui):
    panel.prompt.fill("a cat")
    _fill_all(panel)
    made = panel.generate()
    fresh = _another_page(panel, webui)
    fresh.paste(made["infotext"])
    expect(fresh.prompt).to_have_value("a cat")
    expect(fresh.switch).to_be_checked()
    expect(fresh.tag).to_have_value(FULL)
    expect(fresh.entry("content")).to_have_value(ODD)
    expect(fresh.entry("style")).to_have_value("hat")
    expect(fresh.part("mu").locator("input")).to_have_value("2")
    assert fresh.generate()["prompts"] == made["prompts"]


def test_hard_comes_back(paired):
    paired.tick("hard", True)
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:hard>")
    made = paired.generate()
    paired.start_over()
    paired.paste(made["infotext"])
    expect(paired.part("hard").locator("input")).to_be_checked()
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:hard>")


def test_the_lines_by_block_come_back(paired):
    paired.add_block("mu_by_block", "mid", "mid@0.5")
    paired.text("content_by_block").fill("in@0.6,out1@0")
    tag = "<nplora:dog:vangogh:0.5,mid@0.5:c=1,in@0.6,out1@0>"
    expect(paired.tag).to_have_value(tag)
    made = paired.generate()
    assert made["prompts"] == [tag] * 2
    paired.start_over()
    paired.paste(made["infotext"])
    expect(paired.tag).to_have_value(tag)
    for name, value in (("mu_by_block", "mid@0.5"), ("content_by_block", "in@0.6,out1@0"), ("style_by_block", "")):
        expect(paired.text(name)).to_have_value(value)


def test_the_methods_settings_come_back(paired):
    paired.choose("method", "klora")
    paired.part("alpha").locator("input, textarea").fill("2")
    paired.choose("scope", "all")
    tag = "<nplora:dog:vangogh:method=klora:alpha=2:scope=all>"
    expect(paired.tag).to_have_value(tag)
    made = paired.generate()
    paired.start_over()
    paired.paste(made["infotext"])
    expect(paired.tag).to_have_value(tag)
    for name, value in (("alpha", "2"), ("beta", ""), ("scope", "all")):
        expect(paired.part(name)).to_be_visible()
        expect(paired.part(name).locator("input, textarea")).to_have_value(value)
    expect(paired.part("density")).to_be_hidden()


def test_a_pasted_method_that_is_not_there_is_named(paired):
    paired.paste("a cat <nplora:dog:vangogh:2:method=klorra>\nSteps: 20, Sampler: Euler, Seed: 1, Size: 512x512")
    expect(paired.tag).to_have_value(re.compile("no method 'klorra'. Did you mean 'klora'?"))
    expect(paired.part("about").locator("p")).to_have_text("there is no such method")


def test_a_typed_tag_stays_in_the_prompt_with_the_panel_off(page):
    panel = Panel(page, "txt2img")
    panel.paste("a cat <nplora:dog:vangogh:2>\nSteps: 20, Sampler: Euler, Seed: 1, Size: 512x512")
    expect(panel.prompt).to_have_value("a cat <nplora:dog:vangogh:2>")
    expect(panel.switch).not_to_be_checked()
    expect(panel.tag).to_have_value("<nplora:dog:vangogh:2>")


def test_a_picture_without_us_switches_the_panel_off(paired):
    paired.paste("a cat\nSteps: 20, Sampler: Euler, Seed: 1, Size: 512x512")
    expect(paired.prompt).to_have_value("a cat")
    expect(paired.switch).not_to_be_checked()
    assert paired.generate()["prompts"] == ["a cat"] * 2


def test_a_lora_that_was_renamed_is_found(panel, webui):
    puppy = webui.add_lora("puppy", seed=8)
    panel.refresh("content", "puppy")
    panel.choose_pair("puppy", "vangogh")
    made = panel.generate()
    puppy.rename(puppy.with_stem("hound"))
    panel.refresh("style", "hound")
    panel.paste(made["infotext"])
    expect(panel.tag).to_have_value("<nplora:hound:vangogh:0.5>")


def test_send_to_img2img_takes_the_panel_along(panel):
    _fill_all(panel)
    panel.prompt.fill("a cat")
    panel.page.locator("#txt2img_send_to_img2img").click()
    panel.open_tab("img2img")
    other = Panel(panel.page, "img2img")
    expect(other.prompt).to_have_value("a cat")
    expect(other.switch).to_be_checked()
    expect(other.tag).to_have_value(FULL)
    assert other.generate()["prompts"] == [f"a cat {FULL}"] * 2


@pytest.mark.parametrize("first", ["content", "style"])
def test_a_card_gives_its_lora_a_role(page, first):
    """The menu on the cards does this; the cards themselves are a host's."""
    panel = Panel(page, "txt2img")
    second = "style" if first == "content" else "content"
    page.evaluate("([role]) => nploraSetRole('txt2img', role, 'dog')", [first])
    expect(panel.entry(first)).to_have_value("dog")
    expect(panel.switch).not_to_be_checked()
    page.evaluate("([role]) => nploraSetRole('txt2img', role, 'hat')", [second])
    expect(panel.switch).to_be_checked()
    pair = ("dog", "hat") if first == "content" else ("hat", "dog")
    expect(panel.tag).to_have_value(f"<nplora:{pair[0]}:{pair[1]}:0.5>")
