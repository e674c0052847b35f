"""A real host's page, as a user handles it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, expect

from ..hosts.driver import Picture
from ..webui.browser.panel import Panel
from .driver import RealHost, pixels_of

PATIENCE = 120_000
"""Milliseconds for a picture: on a processor, the first one loads the model."""

PLOT_PATIENCE = 10 * PATIENCE

SMALL = {"steps": "2", "width": "64", "height": "64", "seed": "1"}


class HostPage:
    """The page of a running host."""

    def __init__(self, page: Page, host: RealHost, *, theme: str = "light") -> None:
        self.page = page
        self.host = host
        page.goto(f"{host.url}/?__theme={theme}")
        # The host's JavaScript makes these boxes when the page is ready, and fills in the cards after that.
        page.locator("#txt2img_nplora-visible-checkbox").wait_for(timeout=PATIENCE)
        page.locator("#txt2img_lora_cards .card").first.wait_for(state="attached", timeout=PATIENCE)
        self.txt2img = Tab(page, host, "txt2img")
        self.img2img = Tab(page, host, "img2img")

    def cards(self) -> Locator:
        """The LoRAs' cards of txt2img, brought to the front."""
        self.page.locator("#txt2img_extra_tabs > .tab-nav button", has_text="Lora").click()
        return self.page.locator("#txt2img_lora_cards .card")

    def settings(self, section: str) -> Locator:
        """A section of the settings, brought to the front."""
        self.page.locator("#tabs > .tab-nav button", has_text="Settings").click()
        self.page.locator("#settings > .tab-nav button", has_text=section).click()
        return self.page.locator("#settings")

    def shoot(self, path: Path | None, part: Locator | None = None) -> None:
        """Take a picture of the page, or of a part of it, if there is a file for it."""
        if path and part:
            part.screenshot(path=path)
        elif path:
            self.page.screenshot(path=path, full_page=True)


class Tab:
    """One of the two tabs that make pictures."""

    def __init__(self, page: Page, host: RealHost, name: str) -> None:
        self.page = page
        self.name = name
        self.panel = Panel(page, name)
        self._host = host
        self._log = page.locator(f"#html_log_{name}")

    def make_small(self) -> None:
        """Ask for pictures that are made quickly, and the same each time."""
        for name, value in SMALL.items():
            box = self.page.locator(f"#{self.name}_{name} input[type=number]")
            box.fill(value)
            box.press("Tab")
            expect(box).to_have_value(value)
        choose(self.page.locator(f"#{self.name}_sampling"), "Euler")

    def switch_panel(self, on: bool) -> None:
        if self.panel.switch.is_checked() != on:
            self.panel.toggle()
        expect(self.panel.switch).to_be_checked(checked=on)

    def switch_hires(self, upscaler: str) -> None:
        self.page.locator(f"#{self.name}_hr .label-wrap").click()
        choose(self.page.locator(f"#{self.name}_hr_upscaler"), upscaler)

    def generate(self) -> list[Picture]:
        """Press Generate, wait until the page shows the result, and read what the host saved, in its order."""
        saved = set(self._host.saved())
        shown = self.page.evaluate(_SHOWN, self.name)
        self.page.locator(f"#{self.name}_generate").click()
        done = f"([tab, before]) => {{ const now = ({_SHOWN})(tab); return now && now !== before && ({_IDLE})(tab); }}"
        self.page.wait_for_function(done, arg=[self.name, shown], timeout=PLOT_PATIENCE, polling=200)
        return [_read(path) for path in self._host.saved() if path not in saved]

    def generate_one(self, prompt: str | None = None) -> Picture:
        if prompt is not None:
            self.panel.prompt.fill(prompt)
        (picture,) = self.generate()
        return picture

    def typed(self, prompt: str) -> Picture:
        """The picture of a prompt that holds all that counts."""
        self.switch_panel(False)
        return self.generate_one(prompt)

    def refused(self) -> str:
        """Press Generate for what the host does not make. Returns what it says."""
        saved = self._host.saved()
        self.page.locator(f"#{self.name}_generate").click()
        error = self._log.locator(".error")
        error.wait_for(timeout=PATIENCE)
        self.page.wait_for_function(_IDLE, arg=self.name, timeout=PATIENCE)
        assert self._host.saved() == saved
        return error.inner_text()


class Plot:
    """The form of the X/Y/Z plot."""

    def __init__(self, tab: Tab) -> None:
        self._form = tab.page.locator(f"#{tab.name}_script_container")
        self._id = f"script_{tab.name}_xyz_plot"
        choose(self._form.locator("#script_list"), "X/Y/Z plot")

    def leave(self) -> None:
        choose(self._form.locator("#script_list"), "None")

    def vary(self, axis: str, label: str) -> None:
        """Put something that has choices on an axis."""
        choose(self._form.locator(f"#{self._id}_{axis.lower()}_type"), label)
        expect(self._fill_button(axis)).to_be_visible()

    def pick(self, axis: str, *values: str) -> None:
        """Choose some of the values that the plot offers; those that are chosen are taken out again."""
        box = self._values(axis)
        for value in values:
            box.click()
            box.fill(value)
            self._form.locator(_option(value)).locator("visible=true").click()

    def fill(self, axis: str) -> None:
        """Choose all values that the plot offers, by its button."""
        self._fill_button(axis).click()

    def type(self, axis: str, text: str) -> None:
        self._form.locator(f"#{self._id}_csv_mode input").check()
        box = self._form.locator(f"#{self._id}_{axis.lower()}_values textarea, #{self._id}_{axis.lower()}_values input")
        box.fill(text)

    def chosen(self, axis: str) -> Locator:
        """The values that are chosen."""
        return self._values(axis).locator("xpath=ancestor::div[contains(@class, 'wrap-inner')]").locator(".token")

    def _fill_button(self, axis: str) -> Locator:
        return self._form.locator(f"#xyz_grid_fill_{axis.lower()}_tool_button")

    def _values(self, axis: str) -> Locator:
        return self._form.get_by_label(f"{axis} values").locator("visible=true")


_SHOWN = """(tab) => [...document.querySelectorAll(`#${tab}_gallery img`)]
    .filter((image) => !image.closest(".livePreview")).map((image) => image.src).join()"""
"""What the gallery shows. Its addresses are the saved files', which are all new."""

_IDLE = "(tab) => getComputedStyle(document.querySelector(`#${tab}_interrupt`)).display === 'none'"


def choose(dropdown: Locator, value: str) -> None:
    """Choose from one of the host's dropdowns by typing, in any case: Forge Classic writes "X/Y/Z Plot"."""
    entry = dropdown.locator("input")
    entry.click()
    entry.fill(value)
    dropdown.locator(_option(value)).click()
    expect(entry).to_have_value(re.compile(f"^{re.escape(value)}$", re.IGNORECASE))


def _option(value: str) -> str:
    return f"ul.options li[aria-label={json.dumps(value)} i]"


def _read(path: Path) -> Picture:
    with Image.open(path) as image:
        return Picture((pixels_of(image),), image.info["parameters"], ())
