"""The panel, the plot and the rest of us in the pages of real hosts, by a real browser.

Needs what driver.py says, and chromium. Screenshots go to the folder NPLORA_SCREENSHOTS, if it is set.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from lib_nplora.methods.table import methods

from ..hosts.driver import write_lora
from ..webui.browser import machine
from ..webui.browser.test_layout import SHORT_ENOUGH, apart, hard_is_beside_mu, out_of_order
from .driver import KINDS, RealHost, running
from .page import SMALL, HostPage, Plot, Tab
from .sd15 import MODULES

TAG = "<nplora:dog:vangogh:2:c=0.85:te=0:k=90%>"
MARK = ", NP-LoRA: panel"
PARTS = (
    *("content", "style", "refresh", "swap", "mu_position", "mu", "hard", "content_weight", "style_weight"),
    *("k", "method", "te", "tag", "insert"),
)
NOT_OURS = {"Cannot read properties of undefined (reading 'props')", "Wake Lock is not supported."}
"""What a host's page complains of without us, too: A1111's, when the width or height of a picture is changed; Neo's,
in a browser without a window."""
EMPTY_PROMPTS = {
    f"{tab}/{prompt}/value": "" for tab in ("txt2img", "img2img") for prompt in ("Prompt", "Negative Prompt")
}
"""The page's defaults. Without such a file, at its very first start, Forge Neo 2.26 pastes no prompt."""
MUS = ("0", "0.1", "0.5", "1", "10", "hard")


@pytest.fixture(scope="class")
def browser() -> Iterator[Browser]:
    if machine.CHROMIUM is None:
        pytest.skip(machine.NO_CHROMIUM)
    with sync_playwright() as playwright:
        expect.set_options(timeout=30_000)
        browser = playwright.chromium.launch(executable_path=machine.CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="class")
def host(request, browser, tmp_path_factory) -> Iterator[RealHost]:
    data = tmp_path_factory.mktemp(request.param)
    loras = data / "models" / "Lora"
    loras.mkdir(parents=True)
    write_lora(loras / "dog.safetensors", MODULES, seed=1, rank=4, alpha=2)
    write_lora(loras / "vangogh.safetensors", MODULES, seed=2, rank=6)
    write_lora(loras / "hat.safetensors", MODULES, seed=3, rank=2, alpha=1)
    (data / "ui-config.json").write_text(json.dumps(EMPTY_PROMPTS), encoding="utf-8")
    with running(request.param, data) as host:
        yield host


@pytest.fixture
def open_page(browser, host) -> Iterator[Callable[..., HostPage]]:
    """A user's browser that reaches no other machine. Nothing of ours may complain in it."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(60_000)
    problems: list[str] = []

    context.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    context.on("weberror", lambda error: problems.append(str(error.error)))
    elsewhere = re.compile(f"^(?!{re.escape(host.url)}|data:|blob:)")
    context.route(elsewhere, lambda route: route.fulfill(status=200, body=""))

    def opened(*, theme: str = "light", width: int = 1280) -> HostPage:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 1000})
        return HostPage(page, host, theme=theme)

    yield opened
    context.close()
    assert [problem for problem in problems if problem not in NOT_OURS] == []


@pytest.fixture
def page(open_page) -> HostPage:
    page = open_page()
    page.txt2img.make_small()
    return page


@pytest.fixture
def shot(request) -> Callable[[str], Path | None]:
    """The file of a screenshot, None if nobody wants it."""
    folder = os.environ.get("NPLORA_SCREENSHOTS")
    host = request.node.callspec.params["host"]

    def file(name: str) -> Path | None:
        return Path(folder) / f"{host}-{name}.png" if folder else None

    return file


def fill(panel) -> None:
    """Make the panel stand for TAG. What is chosen is not chosen again: Gradio 4 would leave what is typed for it."""
    panel.unfold("more")
    for name, value, typed in (("content", "dog", "do"), ("style", "vangogh", "GOGH")):
        if panel.entry(name).input_value() != value:
            panel.choose(name, value, typed=typed)
    panel.type_into("mu", "2")
    panel.type_into("content_weight", "0.85")
    panel.choose("k", "90%")
    panel.tick("te", False)
    expect(panel.tag).to_have_value(TAG)


def expect_filled(panel) -> None:
    for name, value in {"content": "dog", "style": "vangogh", "k": "90%", "method": "np"}.items():
        expect(panel.entry(name)).to_have_value(value)
    for name, value in {"mu": "2", "content_weight": "0.85", "style_weight": "1"}.items():
        expect(panel.part(name).locator("input[type=number]")).to_have_value(value)
    for name in ("hard", "te"):
        expect(panel.part(name).locator("input")).not_to_be_checked()
    expect(panel.tag).to_have_value(TAG)


@pytest.mark.parametrize("host", list(KINDS), indirect=True)
class TestPage:
    """One host for all of them, a fresh page for each."""

    def test_1_the_panel_is_its_tag(self, page, shot):
        tab = page.txt2img
        tab.switch_panel(True)
        fill(tab.panel)
        picture = tab.generate_one("a cat")
        page.shoot(shot("generated"))
        assert picture.infotext.startswith(f"a cat {TAG}\n")
        assert MARK in picture.infotext
        tab.panel.tick("hard", True)
        hard = TAG.replace(":2:", ":hard:")
        expect(tab.panel.tag).to_have_value(hard)
        hard_picture = tab.generate_one()
        assert hard_picture.infotext.startswith(f"a cat {hard}\n")
        typed = tab.typed(f"a cat {TAG}")
        assert typed.pixels == picture.pixels
        assert typed.infotext == picture.infotext.replace(MARK, "")
        assert tab.typed(f"a cat {hard}").pixels == hard_picture.pixels
        plain = tab.typed("a cat")
        assert len({plain.pixels, picture.pixels, hard_picture.pixels}) == 3
        assert "nplora" not in plain.infotext.lower()
        assert "NP-LoRA" not in plain.infotext

    def test_1_a_method_offers_what_it_reads(self, page, shot):
        tab = page.txt2img
        tab.switch_panel(True)
        tab.panel.choose_pair()
        expect(tab.panel.part("alpha")).to_be_hidden()
        tab.panel.choose("method", "klora")
        expect(tab.panel.part("density")).to_be_hidden()
        tab.panel.part("alpha").locator("input, textarea").fill("2")
        tag = "<nplora:dog:vangogh:method=klora:alpha=2>"
        expect(tab.panel.tag).to_have_value(tag)
        picture = tab.generate_one("a cat")
        page.shoot(shot("method"))
        assert picture.infotext.startswith(f"a cat {tag}\n")
        assert tab.generate_one().pixels == picture.pixels
        assert tab.typed(f"a cat {tag}").pixels == picture.pixels
        assert tab.typed("a cat <nplora:dog:vangogh:method=direct>").pixels != picture.pixels

    def test_1_a_pair_is_inspected_and_saved(self, page, shot, host):
        tab = page.txt2img
        tab.switch_panel(True)
        tab.panel.choose_pair()
        tab.panel.unfold("inspect_fold")
        tab.panel.press("inspect")
        told = tab.panel.part("findings").locator("p")
        expect(told.first).to_have_text(re.compile("^The two share "), timeout=120_000)
        expect(told.nth(1)).to_have_text("<nplora:dog:vangogh:0.5>")
        expect(tab.panel.part("picture").locator("img").first).to_be_visible()
        page.shoot(shot("inspect"), tab.panel.part("inspect_fold"))
        tab.panel.unfold("save_fold")
        tab.panel.part("output").locator("input, textarea").first.fill("both")
        tab.panel.press("save")
        saved = tab.panel.part("saved").locator("input, textarea")
        expect(saved).to_have_value(re.compile("^<lora:both:1> is in "), timeout=120_000)
        page.shoot(shot("save"), tab.panel.part("save_fold"))
        assert (host.lora_dir / "both.safetensors").is_file()
        both, plain = tab.typed("a cat <lora:both:1>"), tab.typed("a cat")
        assert both.pixels != plain.pixels
        assert "both: " in both.infotext
        tab.switch_panel(True)
        tab.panel.choose("method", "klora")
        tab.panel.press("inspect")
        expect(told.nth(1)).to_have_text(re.compile(rf"method=klora>, {SMALL['steps']} steps"), timeout=120_000)
        page.shoot(shot("inspect-klora"), tab.panel.part("inspect_fold"))

    def test_1_a_verdict_appears_by_itself(self, page, shot):
        tab = page.txt2img
        tab.switch_panel(True)
        tab.panel.choose_pair()
        said = tab.panel.part("verdict").locator("p")
        expect(said).to_have_text(re.compile("^(The two share |Press Inspect )"))
        for tries in range(1, 20):
            if said.inner_text().startswith("The two share "):
                break
            tab.panel.type_into("mu", str(tries))  # A machine that is busy may take too long at first.
            page.page.wait_for_timeout(3000)
        expect(said).to_have_text(re.compile("^The two share .* mu = "))
        page.shoot(shot("verdict"), tab.panel.accordion)

    def test_1_what_inspect_shows_in_the_dark_and_on_a_phone(self, open_page, shot):
        page = open_page(theme="dark")
        panel = page.txt2img.panel
        page.txt2img.switch_panel(True)
        panel.choose_pair()
        panel.unfold("inspect_fold")
        panel.press("inspect")
        plots = panel.part("picture").locator("img")
        expect(plots).to_have_count(3, timeout=120_000)
        page.shoot(shot("inspect-dark-1280"), panel.part("inspect_fold"))
        page.page.set_viewport_size({"width": 400, "height": 1000})
        page.shoot(shot("inspect-dark-400"), panel.part("inspect_fold"))
        boxes = [plot.bounding_box() for plot in plots.all()]
        assert all(above["y"] + above["height"] <= below["y"] for above, below in pairwise(boxes))
        plots.nth(1).click()
        large = page.page.locator("dialog.nplora-large")
        expect(large).to_be_visible()
        assert large.bounding_box()["width"] > boxes[1]["width"]
        page.shoot(shot("enlarged-dark-400"), large)
        large.click()
        expect(large).to_have_count(0)

    def test_2_inserted_and_undone(self, page):
        tab = page.txt2img
        tab.panel.prompt.press_sequentially("a cat")
        tab.switch_panel(True)
        fill(tab.panel)
        tab.panel.press("insert")
        expect(tab.panel.prompt).to_have_value(f"a cat {TAG}")
        page.page.keyboard.press("Control+Z")
        expect(tab.panel.prompt).to_have_value("a cat")
        tab.panel.press("insert")
        expect(tab.panel.prompt).to_have_value(f"a cat {TAG}")
        picture = tab.generate_one()
        assert MARK not in picture.infotext
        typed = tab.typed(f"a cat {TAG}")
        assert typed.pixels == picture.pixels
        assert typed.infotext == picture.infotext

    def test_3_pasted_back(self, page):
        tab = page.txt2img
        plain = tab.typed("a cat")
        tab.switch_panel(True)
        fill(tab.panel)
        picture = tab.generate_one("a cat")
        another = plain.infotext.replace("a cat", "a dog")
        tab.panel.paste(another)
        tab.switch_panel(True)
        tab.panel.press("swap")
        tab.panel.tick("hard", True)
        tab.panel.tick("te", True)
        tab.panel.type_into("style_weight", "0.3")
        tab.panel.choose("k", "8")
        tab.panel.choose("method", "direct")
        tab.switch_panel(False)
        tab.panel.paste(picture.infotext)
        expect(tab.panel.prompt).to_have_value("a cat")
        expect(tab.panel.switch).to_be_checked()
        expect_filled(tab.panel)
        assert tab.generate_one() == picture
        tab.panel.paste(another)
        tab.switch_panel(True)
        tab.panel.paste(plain.infotext)
        expect(tab.panel.switch).not_to_be_checked()
        assert tab.generate_one() == plain

    def test_3_a_typed_tag_stays_in_the_prompt(self, page):
        tab = page.txt2img
        typed = tab.typed(f"a cat {TAG}")
        tab.panel.paste(typed.infotext.replace("a cat", "a dog"))
        tab.switch_panel(True)
        tab.panel.paste(typed.infotext)
        expect(tab.panel.prompt).to_have_value(f"a cat {TAG}")
        expect(tab.panel.switch).not_to_be_checked()
        expect_filled(tab.panel)
        assert tab.generate_one() == typed

    def test_4_a_sweep(self, page, shot):
        tab, plot = _plotting(page)
        plot.vary("X", "[NP-LoRA] mu")
        plot.pick("X", *MUS)
        plot.vary("Y", "[NP-LoRA] method")
        plot.fill("Y")
        expect(plot.chosen("X")).to_have_text(MUS)
        expect(plot.chosen("Y")).to_have_text(list(methods()))
        plot.pick("Y", *(name for name in methods() if name not in ("np", "direct")))
        expect(plot.chosen("Y")).to_have_text(["np", "direct"])
        tab.panel.prompt.fill("a cat")
        page.shoot(shot("plot"))
        cells = tab.generate()
        page.shoot(shot("grid"))
        tags = [_cell(mu, method) for method in ("np", "direct") for mu in MUS]
        for cell, tag in zip(cells, tags, strict=True):
            assert cell.infotext.startswith(f"a cat {tag}\n"), (cell.infotext, tag)
        plot.leave()
        for cell, tag in zip(cells, tags, strict=True):
            assert cell.pixels == tab.typed(f"a cat {tag}").pixels, tag
        assert len({cell.pixels for cell in cells}) == len(MUS)

    def test_4_mu_is_varied_innermost_wherever_it_stands(self, page):
        tab, plot = _plotting(page)
        plot.vary("X", "[NP-LoRA] content")
        plot.pick("X", "dog", "hat")
        plot.vary("Y", "[NP-LoRA] mu")
        plot.pick("Y", "1", "hard")
        tab.panel.prompt.fill("a cat")
        tags = [f"<nplora:{content}:vangogh:{mu}>" for content in ("dog", "hat") for mu in ("1", "hard")]
        for cell, tag in zip(tab.generate(), tags, strict=True):
            assert cell.infotext.startswith(f"a cat {tag}\n"), cell.infotext

    def test_4_a_wrong_value_ends_the_plot(self, page, shot):
        tab, plot = _plotting(page)
        plot.vary("X", "[NP-LoRA] mu")
        plot.type("X", "0.5, lots")
        tab.panel.prompt.fill("a cat")
        said = tab.refused()
        page.shoot(shot("refused"))
        assert "[NP-LoRA] mu: " in said
        assert "lots" in said

    def test_5_hires(self, page, host, shot):
        tab = page.txt2img
        tab.switch_hires(host.hires_upscaler)
        tab.switch_panel(True)
        fill(tab.panel)
        picture = tab.generate_one("a cat")
        assert "Hires upscale: 2" in picture.infotext
        assert picture.infotext.startswith(f"a cat {TAG}\n")
        assert tab.typed(f"a cat {TAG}").pixels == picture.pixels
        assert tab.typed("a cat").pixels != picture.pixels

    def test_6_img2img(self, page, shot):
        tab = page.txt2img
        tab.switch_panel(True)
        fill(tab.panel)
        tab.generate_one("a cat")
        page.page.locator("#txt2img_send_to_img2img").click()
        other = page.img2img
        expect(other.panel.accordion).to_be_visible()
        expect(other.panel.prompt).to_have_value("a cat")
        expect(other.panel.switch).to_be_checked()
        expect_filled(other.panel)
        page.shoot(shot("img2img"))
        other.panel.type_into("mu", "3")
        expect(other.panel.tag).to_have_value(TAG.replace(":2:", ":3:"))
        expect(tab.panel.tag).to_have_value(TAG)
        other.make_small()
        picture = other.generate_one()
        assert picture.infotext.startswith(f"a cat {TAG.replace(':2:', ':3:')}\n")
        assert MARK in picture.infotext
        assert other.typed(f"a cat {TAG.replace(':2:', ':3:')}").pixels == picture.pixels
        assert other.typed("a cat").pixels != picture.pixels

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_7_the_menu_on_a_card(self, open_page, shot, theme):
        page = open_page(theme=theme)
        tab = page.txt2img
        tab.panel.prompt.fill("a cat")
        for role, name in (("style", "vangogh"), ("content", "dog")):
            card = page.cards().and_(page.page.locator(f'[data-name="{name}"]'))
            card.hover()
            card.get_by_title("Use in NP-LoRA").click()
            entry = page.page.get_by_role("menuitem", name=f"Use as {role}")
            entry.hover()
            page.shoot(shot(f"card-{theme}"))
            entry.click()
            expect(tab.panel.entry(role)).to_have_value(name)
        expect(tab.panel.tag).to_have_value("<nplora:dog:vangogh:0.5>")
        expect(tab.panel.switch).to_be_checked()
        expect(tab.panel.prompt).to_have_value("a cat")

    def test_8_the_settings(self, page, shot):
        settings = page.settings("NP-LoRA")
        for name in ("mu", "k", "method", "on_error", "cache"):
            expect(settings.locator(f"#setting_nplora_{name}")).to_be_visible()
        page.page.evaluate("scrollTo(0, 0)")
        page.shoot(shot("settings"))

    @pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 400), ("dark", 400)])
    def test_9_every_part_has_its_place(self, open_page, shot, theme, width):
        page = open_page(theme=theme, width=width)
        panel = page.txt2img.panel
        page.txt2img.switch_panel(True)
        expect(panel.part("insert")).to_be_disabled()
        page.shoot(shot(f"no-pair-{theme}-{width}"), panel.accordion)
        panel.choose_pair()
        expect(panel.part("insert")).to_be_enabled()
        page.shoot(shot(f"closed-{theme}-{width}"), panel.accordion)
        assert out_of_order(panel) == []
        assert hard_is_beside_mu(panel)
        if width == 400:
            height = panel.accordion.bounding_box()["height"]
            whole = page.page.evaluate("document.documentElement.scrollHeight")
            if file := shot(f"height-{theme}-{width}"):
                file.with_suffix(".txt").write_text(f"panel {height:.0f}, page {whole} pixels\n", encoding="utf-8")
            assert height <= SHORT_ENOUGH
        panel.choose("method", "klora")
        expect(panel.part("mu")).to_be_hidden()
        page.shoot(shot(f"klora-{theme}-{width}"), panel.accordion)
        panel.choose("method", "np")
        fill(panel)
        page.shoot(shot(f"panel-{theme}-{width}"), panel.accordion)
        assert apart(panel) == []
        frame = panel.accordion.bounding_box()
        assert frame["x"] >= 0
        assert frame["x"] + frame["width"] <= width
        boxes = panel.boxes(*PARTS)
        for name, box in boxes.items():
            assert box["x"] >= frame["x"], name
            assert box["x"] + box["width"] <= frame["x"] + frame["width"], name
        for one, a in boxes.items():
            for other, b in boxes.items():
                assert one == other or _apart(a, b), (one, other)


def _plotting(page: HostPage) -> tuple[Tab, Plot]:
    """The tab, with a pair in its panel, and its plot."""
    tab = page.txt2img
    tab.switch_panel(True)
    tab.panel.choose_pair()
    return tab, Plot(tab)


def _cell(mu: str, method: str) -> str:
    return f"<nplora:dog:vangogh:{mu if method == 'np' else f'method={method}'}>"


def _apart(a, b) -> bool:
    return (
        a["x"] + a["width"] <= b["x"] + 1
        or b["x"] + b["width"] <= a["x"] + 1
        or a["y"] + a["height"] <= b["y"] + 1
        or b["y"] + b["height"] <= a["y"] + 1
    )
