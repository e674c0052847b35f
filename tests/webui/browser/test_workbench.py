"""Inspect and Save."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from .panel import Panel

PATIENCE = 60_000


def opened(panel: Panel) -> Panel:
    panel.part("workbench").locator(".label-wrap").click()
    expect(panel.part("inspect")).to_be_visible()
    return panel


def says(panel: Panel, name: str, text: str | re.Pattern[str]) -> None:
    expect(panel.part(name).locator("textarea, input").first).to_have_value(text, timeout=PATIENCE)


def picture(panel: Panel, name: str) -> None:
    """Keep one for whoever looks."""
    if folder := os.environ.get("NPLORA_SCREENSHOTS"):
        panel.part("workbench").screenshot(path=Path(folder) / f"{name}.png")


def test_a_pair_is_told_and_drawn(panel, webui):
    panel.choose_pair()
    opened(panel)
    panel.press("inspect")
    says(panel, "findings", re.compile(r"^<nplora:dog:vangogh:0\.5>:\nThe two share .*mu = 0\.5 removes", re.DOTALL))
    image = panel.part("picture").locator("img")
    expect(image).to_be_visible(timeout=PATIENCE)
    assert image.evaluate("image => image.naturalWidth") > 1000
    picture(panel, f"inspect-{webui.gradio}")


def test_a_schedule_is_for_the_steps_of_the_tab(panel, webui):
    panel.choose_pair()
    panel.choose("method", "klora")
    opened(panel)
    panel.press("inspect")
    says(panel, "findings", re.compile(r"method=klora>, 20 steps:"))
    steps = panel.page.locator(f"#{panel.tab}_steps input[type=number]")
    steps.fill("7")
    steps.press("Tab")
    panel.press("inspect")
    says(panel, "findings", re.compile(r"method=klora>, 7 steps:"))
    picture(panel, f"schedule-{webui.gradio}")


def test_a_pair_that_is_none_is_told_in_a_sentence(panel):
    opened(panel)
    panel.press("inspect")
    says(panel, "findings", "choose a content LoRA and a style LoRA")


def test_a_fusion_is_saved_under_its_name_and_never_over_another(panel, webui):
    panel.choose_pair()
    opened(panel)
    name = panel.part("output").locator("textarea, input").first
    saved = webui.lora_dir / "both.safetensors"
    try:
        name.fill("both")
        panel.press("save")
        says(panel, "saved", re.compile(r"^<lora:both:1> is in .*both\.safetensors\."))
        assert saved.stat().st_size
        panel.refresh("content", "both")
        picture(panel, f"save-{webui.gradio}")
        before = saved.read_bytes()
        panel.press("save")
        says(panel, "saved", re.compile("there is a file 'both.safetensors' already"))
        assert saved.read_bytes() == before
    finally:
        saved.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("method", "told"), [("klora", "changes from step to step, which no file can hold"), ("np", "the output '' is")]
)
def test_what_cannot_be_saved_is_told(panel, webui, method, told):
    panel.choose_pair()
    panel.choose("method", method)
    opened(panel)
    if method != "np":
        panel.part("output").locator("textarea, input").first.fill("never")
    before = set(webui.lora_dir.iterdir())
    panel.press("save")
    says(panel, "saved", re.compile(told))
    assert set(webui.lora_dir.iterdir()) == before
