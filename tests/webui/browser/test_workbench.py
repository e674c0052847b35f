"""Inspect and Save."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from .panel import Panel

PATIENCE = 60_000


def says(panel: Panel, name: str, text: str | re.Pattern[str]) -> None:
    expect(panel.part(name).locator("textarea, input").first).to_have_value(text, timeout=PATIENCE)


def inspected(panel: Panel) -> Locator:
    """Press Inspect. Returns what it says."""
    panel.unfold("inspect_fold")
    panel.press("inspect")
    return panel.part("findings")


def picture(panel: Panel, fold: str, name: str) -> None:
    """Keep one for whoever looks."""
    if folder := os.environ.get("NPLORA_SCREENSHOTS"):
        panel.part(fold).screenshot(path=Path(folder) / f"{name}.png")


def test_a_pair_is_told_in_one_large_sentence_then_more_then_drawn(panel, webui):
    panel.choose_pair()
    told = inspected(panel)
    verdict = told.locator("p").first
    expect(verdict).to_have_text(re.compile(r"^The two share .*mu = 0\.5 removes"), timeout=PATIENCE)
    expect(told.locator("p").nth(1)).to_have_text("<nplora:dog:vangogh:0.5>")
    expect(told.locator("li").first).to_be_visible()
    large, small = (
        one.evaluate("one => parseFloat(getComputedStyle(one).fontSize)") for one in (verdict, told.locator("li").first)
    )
    assert large > small
    expect(panel.part("verdict")).to_have_text(verdict.inner_text())
    images = panel.part("picture").locator("img")
    expect(images).to_have_count(3, timeout=PATIENCE)
    assert images.first.evaluate("image => image.naturalWidth") > 900
    picture(panel, "inspect_fold", f"inspect-{webui.gradio}")


def test_a_plot_is_enlarged_by_a_click_and_goes_by_another(paired):
    inspected(paired)
    plot = paired.part("picture").locator("button").nth(1)
    before = plot.bounding_box()
    plot.click()
    large = paired.page.locator("dialog.nplora-large")
    assert large.bounding_box()["width"] > 1.5 * before["width"]
    large.click()
    expect(large).to_have_count(0)
    plot.press("Enter")
    expect(large).to_be_visible()
    paired.page.keyboard.press("Escape")
    expect(large).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_plots_stand_one_below_the_other_on_a_phone_in_the_pages_colours(context, webui, theme, pictures):
    page = context.new_page()
    page.set_viewport_size({"width": 400, "height": 1000})
    webui.open(page, f"?__theme={theme}")
    panel = Panel(page, "txt2img")
    panel.toggle()
    panel.choose_pair()
    inspected(panel)
    images = panel.part("picture").locator("img")
    expect(images).to_have_count(3, timeout=PATIENCE)
    boxes = [image.bounding_box() for image in images.all()]
    assert all(box["width"] > 0.6 * 400 and box["x"] + box["width"] <= 400 for box in boxes)
    assert all(above["y"] + above["height"] <= below["y"] for above, below in pairwise(boxes))
    brightest = images.first.evaluate(INK)
    assert (brightest > 128) == (theme == "dark")
    panel.part("inspect_fold").screenshot(path=pictures / f"plots-{webui.gradio}-{theme}.png")


INK = """image => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height / 12);
    const opaque = [];
    for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 250) opaque.push(data[i]);
    return opaque.reduce((sum, one) => sum + one, 0) / opaque.length;
}"""
"""How bright the ink of a plot's title is, 0 to 255."""


def test_a_schedule_is_for_the_steps_of_the_tab(panel, webui):
    panel.choose_pair()
    panel.choose("method", "klora")
    told = inspected(panel)
    expect(told).to_contain_text("method=klora>, 20 steps", timeout=PATIENCE)
    expect(panel.part("picture").locator("img")).to_have_count(4, timeout=PATIENCE)
    steps = panel.page.locator(f"#{panel.tab}_steps input[type=number]")
    steps.fill("7")
    steps.press("Tab")
    inspected(panel)
    expect(told).to_contain_text("method=klora>, 7 steps", timeout=PATIENCE)
    picture(panel, "inspect_fold", f"schedule-{webui.gradio}")


def test_a_pair_that_is_none_is_told_in_a_sentence(panel):
    expect(inspected(panel)).to_have_text("choose a content LoRA and a style LoRA", timeout=PATIENCE)


def test_a_fusion_is_saved_under_its_name_and_never_over_another(panel, webui):
    panel.choose_pair()
    panel.unfold("save_fold")
    name = panel.part("output").locator("textarea, input").first
    saved = webui.lora_dir / "both.safetensors"
    try:
        name.fill("both")
        panel.press("save")
        says(panel, "saved", re.compile(r"^<lora:both:1> is in .*both\.safetensors\."))
        assert saved.stat().st_size
        panel.refresh("content", "both")
        picture(panel, "save_fold", f"save-{webui.gradio}")
        before = saved.read_bytes()
        panel.press("save")
        says(panel, "saved", re.compile("there is a file 'both.safetensors' already"))
        assert saved.read_bytes() == before
    finally:
        saved.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("method", "told"), [("klora", "changes from step to step, which no file can hold"), ("np", "the output '' is")]
)
def test_what_cannot_be_saved_is_told(paired, webui, method, told):
    paired.choose("method", method)
    paired.unfold("save_fold")
    paired.part("output").locator("textarea, input").first.fill("" if method == "np" else "never")
    before = set(webui.lora_dir.iterdir())
    paired.press("save")
    says(paired, "saved", re.compile(told))
    assert set(webui.lora_dir.iterdir()) == before
