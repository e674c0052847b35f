"""What the panel looks like. Screenshots go to the folder that NPLORA_SCREENSHOTS names, for eyes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, expect

from .panel import Panel
from .user import no_complaint, of_a_user

PARTS = (
    "content",
    "style",
    "refresh",
    "swap",
    *("method", "about", "content_weight", "style_weight", "tag", "insert"),
    *("content_by_block", "content_by_block_add", "style_by_block", "style_by_block_add", "te"),
)
ORDER = ("content", "method", "about", "mu", "mu_recipe", "content_weight", "tag", "more", "inspect_fold", "save_fold")
"""What a person does, from top to bottom."""
TOGETHER = (
    *(("style", "refresh"), ("style", "swap"), ("mu", "hard")),
    *((f"{name}_by_block", f"{name}_by_block_add") for name in ("mu", "content", "style")),
)
"""What shares a line, on a phone too."""
NARROWEST = 284
"""Pixels that Forge leaves the panel on a page of 400."""
SHORT_ENOUGH = 1250
"""Pixels that the panel may be high on a phone, its folds closed."""

METHODS = {
    "np": ("mu_position", "mu", "hard", "mu_recipe", "mu_by_block", "mu_by_block_add", "k"),
    "klora": ("alpha", "beta", "scope"),
}
"""Some, with the parts that only they show."""


@pytest.fixture(scope="module", params=["light", "dark"])
def theme(request) -> str:
    return request.param


@pytest.fixture(params=[1280, 400])
def width(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def of_theme(browser, webui, theme) -> Iterator[Panel]:
    """A panel with a pair chosen, on one page for all tests."""
    context = of_a_user(browser, webui)
    with no_complaint(context, webui):
        page = context.new_page()
        webui.open(page, f"?__theme={theme}")
        panel = Panel(page, "txt2img")
        panel.toggle()
        panel.choose_pair()
        yield panel
        context.close()


@pytest.fixture
def themed(of_theme, width) -> Panel:
    """Its folds closed, on a page of that width."""
    of_theme.page.set_viewport_size({"width": width, "height": 1000})
    of_theme.fold("more")
    expect(of_theme.part("k")).to_be_hidden()
    expect(of_theme.page.locator("ul.options")).to_have_count(0)
    return of_theme


@pytest.fixture
def changed(themed) -> Iterator[Panel]:
    """It is put back afterwards."""
    yield themed
    themed.entry("content").blur()
    themed.start_over()


@pytest.mark.parametrize("method", METHODS)
def test_it_fits(changed, theme, width, webui, pictures, method):
    changed.unfold("more")
    changed.add_block("content_by_block", "mid", "mid@1")
    if method == "np":
        changed.text("mu_by_block").fill("mid@2,out@hard")
    else:
        changed.choose("method", method)
    expect(changed.part(METHODS[method][-1])).to_be_visible()
    changed.accordion.screenshot(path=pictures / f"{webui.gradio}-{width}-{theme}-{method}.png")
    panel = changed.accordion.bounding_box()
    assert panel["x"] >= 0
    assert panel["x"] + panel["width"] <= width
    boxes = changed.boxes(*PARTS, *METHODS[method])
    for name, box in boxes.items():
        assert box["x"] >= panel["x"], name
        assert box["x"] + box["width"] <= panel["x"] + panel["width"], name
        assert box["width"] >= 30, name
        assert box["height"] >= 20, name
    for (name, box), (other, second) in itertools.combinations(boxes.items(), 2):
        assert not _overlap(box, second), (name, other)
    for name in ("role", "role_set"):
        expect(changed.part(name)).to_be_attached()
        expect(changed.part(name)).to_be_hidden()
    assert changed.page.evaluate("document.documentElement.scrollWidth") <= width
    for option in changed.options("content", "").all():
        box = option.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_it_is_in_the_order_of_what_one_does_with_room_between(themed, theme, width, webui, pictures):
    themed.accordion.screenshot(path=pictures / f"{webui.gradio}-{width}-{theme}-closed.png")
    assert out_of_order(themed) == []
    if width == 400:
        assert themed.accordion.bounding_box()["height"] <= SHORT_ENOUGH


def test_what_belongs_together_shares_a_line(themed, width):
    themed.unfold("more")
    if width == 400:
        assert themed.accordion.bounding_box()["width"] == NARROWEST
    assert apart(themed) == []


def test_hard_stands_on_its_rows_line(themed):
    assert hard_is_beside_mu(themed)


def test_the_theme_reaches_it(themed, theme):
    assert (_brightness(themed.tag) > 128) == (theme == "dark")


def out_of_order(panel: Panel) -> list[tuple[str, str]]:
    """Neighbours of ORDER of which the second does not stand below the first, with room between."""
    boxes = panel.boxes(*ORDER)
    found = []
    for above, below in itertools.pairwise(ORDER):
        room = 0 if below in ("about", "mu_recipe") else 3  # A sentence belongs to what stands above it.
        if boxes[above]["y"] + boxes[above]["height"] + room > boxes[below]["y"]:
            found.append((above, below))
    return found


def apart(panel: Panel) -> list[tuple[str, str]]:
    """What of TOGETHER does not stand beside each other."""
    return [pair for pair in TOGETHER if not _share_a_line(*panel.boxes(*pair).values())]


def hard_is_beside_mu(panel: Panel) -> bool:
    """Whether the box stands at the height of the number."""
    number, hard = (panel.part(name).locator("input").bounding_box() for name in ("mu", "hard"))
    return bool(number["y"] <= hard["y"] + hard["height"] / 2 <= number["y"] + number["height"])


def _share_a_line(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether the two boxes stand beside each other."""
    return (
        one["y"] < other["y"] + other["height"] - 1
        and other["y"] < one["y"] + one["height"] - 1
        and one["x"] + one["width"] <= other["x"] + 1
    )


def _brightness(element: Locator) -> float:
    """Brightness of its text, 0 to 255."""
    colour = element.evaluate("element => getComputedStyle(element).color")
    return sum(map(float, re.findall(r"[0-9.]+", colour)[:3])) / 3


def _overlap(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether one covers more than a pixel of the other, both ways."""
    return all(
        one[at] + one[size] > other[at] + 1 and other[at] + other[size] > one[at] + 1
        for at, size in (("x", "width"), ("y", "height"))
    )
