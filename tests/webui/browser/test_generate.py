"""Pictures with the panel on."""

from __future__ import annotations

from playwright.sync_api import expect

from .panel import Panel

TAG = "<nplora:dog:vangogh:0.5>"


def test_on_it_adds_its_tag_to_every_prompt(paired):
    paired.prompt.fill("a cat")
    made = paired.generate()
    assert made["prompts"] == [f"a cat {TAG}"] * 2
    assert f"a cat {TAG}\n" in made["infotext"]
    assert "dog: " in made["infotext"]
    expect(paired.prompt).to_have_value("a cat")


def test_to_the_hires_prompt_too(panel):
    panel.choose_pair()
    panel.page.locator("#txt2img_hr .label-wrap").click()
    panel.page.locator("#txt2img_hires_prompt textarea").fill("a big cat")
    panel.prompt.fill("a cat")
    made = panel.generate()
    assert made["hr_prompts"] == [f"a big cat {TAG}"] * 2


def test_off_it_adds_nothing(page):
    panel = Panel(page, "txt2img")
    panel.prompt.fill("a cat")
    made = panel.generate()
    assert made["prompts"] == ["a cat"] * 2
    assert made["comments"] == []
    assert "nplora" not in made["infotext"].lower()
    assert "NP-LoRA" not in made["infotext"]


def test_its_box_switches_it_off_without_closing_it(panel):
    panel.choose_pair()
    panel.switch.uncheck()
    panel.prompt.fill("a cat")
    assert panel.generate()["prompts"] == ["a cat"] * 2
    expect(panel.tag).to_be_visible()


def test_the_prompts_own_tag_for_the_pair_wins(paired):
    own = "<nplora:dog:vangogh:hard>"
    paired.prompt.fill(f"a cat {own}")
    made = paired.generate()
    assert made["prompts"] == [f"a cat {own}"] * 2
    assert any("the prompt's own tag for this pair is used" in comment for comment in made["comments"])


def test_half_a_pair_makes_a_plain_picture_that_says_why(panel):
    panel.choose("content", "dog")
    panel.prompt.fill("a cat")
    made = panel.generate()
    assert made["prompts"] == ["a cat"] * 2
    assert any("choose a content LoRA and a style LoRA" in comment for comment in made["comments"])


def test_each_tab_has_a_panel_of_its_own(panel):
    panel.choose_pair()
    panel.open_tab("img2img")
    other = Panel(panel.page, "img2img")
    other.prompt.fill("a hut")
    assert other.generate()["prompts"] == ["a hut"] * 2
    other.toggle()
    other.choose_pair("hat", "dog")
    assert other.generate()["prompts"] == ["a hut <nplora:hat:dog:0.5>"] * 2
    panel.open_tab("txt2img")
    expect(panel.tag).to_have_value(TAG)
