"""The panel as a user handles it."""

from __future__ import annotations

import json
import re
from typing import Any

from playwright.sync_api import Locator, Page, expect

SETTLED = 300
"""Milliseconds in which the last events of what was pasted have run."""


class Panel:
    """The panel of a tab, with the tab's prompt."""

    def __init__(self, page: Page, tab: str) -> None:
        self.page = page
        self.tab = tab
        self.accordion = page.locator(f"#{tab}_nplora")
        self.switch = page.locator(f"#{tab}_nplora-visible-checkbox")
        self.prompt = page.locator(f"#{tab}_prompt textarea")
        self.tag = self.part("tag").locator("textarea, input")
        self._result = page.locator(f"#{tab}_result textarea")

    def part(self, name: str) -> Locator:
        return self.page.locator(f"#{self.tab}_nplora_{name}").first  # Gradio 3 gives HTML its name twice.

    def boxes(self, *names: str) -> dict[str, dict[str, float]]:
        """Where these parts stand, all at one moment: an answer that comes in between moves what is below it."""
        rectangles: dict[str, dict[str, float]] = self.page.evaluate(
            "ids => Object.fromEntries(ids.map(id =>"
            " [id, document.querySelector(`[id='${id}']`).getBoundingClientRect().toJSON()]))",
            [f"{self.tab}_nplora_{name}" for name in names],
        )
        return dict(zip(names, rectangles.values()))

    def toggle(self) -> None:
        """Open the accordion, which switches the panel on, or close it."""
        self.accordion.locator(".label-wrap").first.click()

    def unfold(self, name: str) -> None:
        """Open a fold of the panel, unless it is open."""
        label = self.part(name).locator(".label-wrap").first
        if "open" not in (label.get_attribute("class") or "").split():
            label.click()

    def fold(self, name: str) -> None:
        """Close a fold of the panel, unless it is closed."""
        label = self.part(name).locator(".label-wrap").first
        if "open" in (label.get_attribute("class") or "").split():
            label.click()

    def open_tab(self, name: str) -> None:
        self.page.locator("#tabs > .tab-nav > button").filter(has_text=name).click()

    # controls

    def entry(self, name: str) -> Locator:
        """What a dropdown's text is typed into."""
        return self.part(name).locator("input")

    def options(self, name: str, typed: str) -> Locator:
        """What a dropdown offers for this text."""
        self.entry(name).click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(typed)
        return self.part(name).locator("ul.options li")

    def offered(self, name: str) -> set[str]:
        """All that a dropdown offers, but for an empty choice."""
        options = self.options(name, "")
        expect(options.first).to_be_visible()
        return {text.strip().removeprefix("✓").strip() for text in options.all_inner_texts()} - {""}

    def refresh(self, name: str, lora: str, there: bool = True) -> None:
        """Press the button, and wait until a dropdown offers that LoRA, or no longer does."""
        self.press("refresh")
        for _ in range(300):
            if (lora in self.offered(name)) == there:
                return
            self.entry(name).blur()
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{lora} is {'not' if there else 'still'} offered")

    def choose(self, name: str, value: str, typed: str | None = None) -> None:
        """Type, click the option, leave: Gradio 3 opens the list again after the click."""
        self.options(name, value if typed is None else typed).filter(has_text=value).first.click()
        expect(self.entry(name)).to_have_value(value)
        self.entry(name).blur()

    def type_text(self, name: str, text: str, key: str) -> None:
        """Type into a dropdown, and end with a key."""
        self.options(name, text)
        self.page.keyboard.press(key)

    def type_into(self, name: str, value: str) -> None:
        """Type a number, into a slider's own box too."""
        box = self.part(name).locator("input[type=number]")
        box.fill(value)
        box.press("Tab")

    def slide(self, name: str, share: float) -> float:
        """Click a slider's track there. Returns the value that it took."""
        track = self.part(name).locator("input[type=range]")
        box = track.bounding_box()
        assert box
        track.click(position={"x": 1 + share * (box["width"] - 2), "y": box["height"] / 2})
        return float(track.input_value())

    def text(self, name: str) -> Locator:
        """A box to type text into."""
        return self.part(name).locator("textarea, input")

    def add_block(self, line: str, block: str, after: str) -> None:
        """Choose a block for a line, which then is `after`."""
        self.entry(f"{line}_add").focus()
        self.page.wait_for_timeout(1000)  # Until it lists the loaded model's.
        self.options(f"{line}_add", block).filter(has_text=re.compile(rf"^\W*{block}\W*$")).first.click()
        expect(self.text(line)).to_have_value(after)
        expect(self.entry(f"{line}_add")).to_have_value("")
        self.entry(f"{line}_add").blur()

    def tick(self, name: str, on: bool) -> None:
        self.part(name).locator("input[type=checkbox]").set_checked(on)

    def press(self, name: str) -> None:
        self.part(name).click()

    def choose_pair(self, content: str = "dog", style: str = "vangogh") -> None:
        self.choose("content", content)
        self.choose("style", style)
        expect(self.tag).to_have_value(f"<nplora:{content}:{style}:0.5>")

    def start_over(self) -> None:
        """Go back to where `choose_pair` leads on a new page: by the parameters of a picture that was made there."""
        self.paste("<nplora:dog:vangogh:0.5>\nSteps: 20, Sampler: Euler, Seed: 1, NP-LoRA: panel")
        expect(self.prompt).to_have_value("")
        expect(self.switch).to_be_checked()
        expect(self.tag).to_have_value("<nplora:dog:vangogh:0.5>")
        self.page.wait_for_timeout(SETTLED)

    # the tab around it

    def generate(self) -> dict[str, Any]:
        before = self._result.input_value()
        self.page.locator(f"#{self.tab}_generate").click()
        expect(self._result).not_to_have_value(before)
        made: dict[str, Any] = json.loads(self._result.input_value())
        return made

    def paste(self, infotext: str) -> None:
        self.prompt.fill(infotext)
        self.page.locator(f"#{self.tab}_tools #paste").click()
        expect(self.prompt).not_to_have_value(infotext)
