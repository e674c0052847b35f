"""Our JavaScript in a real browser, on a small page that stands in for a host's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from .browser import machine

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(machine.CHROMIUM is None, reason=machine.NO_CHROMIUM)

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OURS = sorted((ROOT / "javascript").glob("*.js"))
PAGE = (HERE / "javascript.html").read_text("utf8")
TAGCOMPLETE = (HERE / "tagcomplete.html").read_text("utf8")

ODD_NAMES = ["dog (v1.5)", "a, b [x]", "$1 $& .*", "c++ ^|?{2}\\d"]


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=machine.CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def blank(browser) -> Iterator[sync_api.Page]:
    """An empty page, whose test fails if the page reports an error."""
    page = browser.new_page()
    page.set_default_timeout(30_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield page
    page.close()
    assert errors == []


def add_ours(page: sync_api.Page) -> None:
    for file in OURS:
        page.add_script_tag(content=file.read_text("utf8"))
    page.add_style_tag(content=(ROOT / "style.css").read_text("utf8"))


@pytest.fixture
def page(blank) -> sync_api.Page:
    """The host's page with our files, before its cards came."""
    blank.set_content(PAGE)
    add_ours(blank)
    blank.evaluate("start()")
    return blank


def add_tagcomplete(page: sync_api.Page, html: str = TAGCOMPLETE) -> None:
    page.evaluate("html => document.body.append(document.createRange().createContextualFragment(html))", html)


@pytest.fixture
def completing(blank) -> sync_api.Page:
    """The host's page with tagcomplete's files, ours, and the prompt box in focus."""
    blank.set_content(PAGE)
    add_tagcomplete(blank)
    add_ours(blank)
    blank.evaluate("start()")
    prompt_box(blank).focus()
    return blank


def prompt_box(page: sync_api.Page, tab: str = "txt2img") -> sync_api.Locator:
    return page.locator(f"#{tab}_prompt textarea")


def prompt(page: sync_api.Page) -> str:
    return prompt_box(page).input_value()


class TestInsert:
    def insert(self, page: sync_api.Page, tag: str, tab: str = "txt2img") -> None:
        page.evaluate("([tab, tag]) => nploraInsert(tab, tag)", [tab, tag])

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("", "<nplora:dog:vangogh>"),
            ("a photo", "a photo <nplora:dog:vangogh>"),
            ("a photo, ", "a photo, <nplora:dog:vangogh>"),
            ("a photo\n", "a photo\n<nplora:dog:vangogh>"),
            ("a photo # not this", "a photo # not this\n<nplora:dog:vangogh>"),
            ("<nplora:cat:vangogh>", "<nplora:cat:vangogh> <nplora:dog:vangogh>"),
            ("<nplora:vangogh:dog>", "<nplora:vangogh:dog> <nplora:dog:vangogh>"),
            ("<lora:dog:1>", "<lora:dog:1> <nplora:dog:vangogh>"),
            ("a <nplora:dog:vangogh:hard:c=0.9>, b", "a <nplora:dog:vangogh>, b"),
            ("a <nplora:mu=2: dog :vangogh>, b", "a <nplora:dog:vangogh>, b"),
            ("<nplora:cat:vangogh> <nplora:dog:vangogh:1>", "<nplora:cat:vangogh> <nplora:dog:vangogh>"),
            ("a <nplora:dog:vangogh:0.5,mid@2,out@hard:c=1,in@0.6>, b", "a <nplora:dog:vangogh>, b"),
            ("<nplora:dog:vangogh:mid@2> <nplora:dog:ink:mid@2>", "<nplora:dog:vangogh> <nplora:dog:ink:mid@2>"),
        ],
    )
    def test_adds_a_tag_or_replaces_the_one_of_the_same_pair(self, page, before, after) -> None:
        prompt_box(page).fill(before)
        self.insert(page, "<nplora:dog:vangogh>")
        assert prompt(page) == after

    def test_a_tag_with_strengths_by_block_takes_the_place_of_its_like(self, page) -> None:
        by_block = "<nplora:dog:vangogh:0.5,mid@2,out@hard:c=1,in@0.6:s=0.9,out1@0>"
        for before in ("a <nplora:dog:vangogh:2>", "a <nplora:dog:vangogh:hard,mid@2>", f"a {by_block}", "a"):
            prompt_box(page).fill(before)
            self.insert(page, by_block)
            assert prompt(page) == f"a {by_block}"

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_names_are_no_patterns(self, page, name) -> None:
        prompt_box(page).fill("a")
        self.insert(page, f"<nplora:{name}:vangogh:1>")
        self.insert(page, f"<nplora:{name}:vangogh:2>")
        self.insert(page, f"<nplora:vangogh:{name}:3>")
        assert prompt(page) == f"a <nplora:{name}:vangogh:2> <nplora:vangogh:{name}:3>"

    @pytest.mark.parametrize(
        "text", ["", "No tag yet: choose a style", "<lora:dog:1>", "<nplora:dog>", "<nplora:a:b> c"]
    )
    def test_other_text_is_ignored(self, page, text) -> None:
        prompt_box(page).fill("a")
        self.insert(page, text)
        assert prompt(page) == "a"

    @pytest.mark.parametrize("before", ["a photo", "a <nplora:dog:vangogh:1>, b"])
    def test_undo_brings_the_text_back(self, page, before) -> None:
        prompt_box(page).focus()
        page.keyboard.type(before)
        self.insert(page, "<nplora:dog:vangogh:2>")
        assert prompt(page) != before
        page.keyboard.press("Control+z")
        assert prompt(page) == before
        page.keyboard.press("Control+Shift+z")
        assert "<nplora:dog:vangogh:2>" in prompt(page)

    def test_gradio_hears_of_it(self, page) -> None:
        page.evaluate("txt2img_prompt.addEventListener('input', (event) => { window.heard = event.target.value })")
        self.insert(page, "<nplora:dog:vangogh>")
        assert page.evaluate("heard") == "<nplora:dog:vangogh>"

    def test_a_box_out_of_sight_is_filled_all_the_same(self, page) -> None:
        prompt_box(page, "img2img").focus()
        page.evaluate("txt2img_prompt.style.display = 'none'")
        self.test_gradio_hears_of_it(page)
        assert prompt_box(page, "img2img").input_value() == ""

    def test_each_tab_has_its_own(self, page) -> None:
        self.insert(page, "<nplora:dog:vangogh>", "img2img")
        assert (prompt(page), prompt_box(page, "img2img").input_value()) == ("", "<nplora:dog:vangogh>")


class TestBlocks:
    @pytest.mark.parametrize(
        ("block", "line", "strength", "after"),
        [
            ("mid", "", 0.5, "mid@0.5"),
            ("out", "mid@2", 1, "mid@2,out@1"),
            ("mid", "mid@2", 1, "mid@2"),
            ("mid", " MID@2 ; in4@0", 1, "MID@2,in4@0"),
            ("out1", "out@hard", 0, "out@hard,out1@0"),
            ("mid", "mid1@2", "", "mid1@2,mid@0.7"),
            ("mid", None, None, "mid@0.7"),
            ("", "mid@2", 1, "mid@2"),
            (None, "mid@2", 1, "mid@2"),
        ],
    )
    def test_a_block_is_added_once(self, page, block, line, strength, after) -> None:
        added = page.evaluate("(args) => nploraAddBlock(...args, '0.7')", [block, line, strength])
        assert added == [after, ""]


class TestMu:
    def test_ends_and_middle(self, page) -> None:
        assert page.evaluate("[0, 0.4, 1].map((x) => nploraStrength(x, 10))") == [0, 0.64, 10]
        assert page.evaluate("[0, 1.25, 10].map((x) => nploraPosition(x, 10))") == [0, 0.5, 1]

    def test_a_position_leads_back_to_its_mu(self, page) -> None:
        for mu in (0.001, 0.01, 0.1, 0.25, 0.5, 1, 3.3, 7.9, 10):
            position = page.evaluate("x => nploraPosition(x, 10)", mu)
            assert math.isclose(10 * position**3, mu)
            assert page.evaluate("x => nploraStrength(x, 10)", position) == mu

    def test_what_is_outside_or_no_number(self, page) -> None:
        assert page.evaluate("[null, undefined, NaN, '', 'x', -1].map((x) => nploraStrength(x, 10))") == [0] * 6
        assert page.evaluate("[null, undefined, NaN, '', 'x', -1].map((x) => nploraPosition(x, 10))") == [0] * 6
        assert page.evaluate("[nploraStrength(2, 10), nploraPosition(99, 10), nploraPosition(Infinity, 10)]") == [
            10,
            1,
            1,
        ]


class TestSeen:
    @pytest.mark.parametrize(("typed", "told"), [("30", 30), ("7.5", 7.5), ("0", 20), ("", 20)])
    def test_the_last_values_become_the_pages(self, page, typed, told) -> None:
        page.evaluate(
            """typed => document.body.insertAdjacentHTML("beforeend", typed)""",
            f'<div id="txt2img_steps"><input type="number" value="{typed}"><input type="range" value="9"></div>',
        )
        page.evaluate("document.querySelector('gradio-app').append(txt2img_steps)")
        assert page.evaluate("nploraSeen('txt2img', ['dog', 20, null])") == ["dog", told, False]
        assert page.evaluate("nploraSeen('img2img', ['dog', 20, null])") == ["dog", 20, False]
        page.evaluate("document.body.classList.add('dark')")
        assert page.evaluate("nploraSeen('txt2img', ['dog', 20, null])") == ["dog", told, True]


class TestAnswers:
    def test_the_newest_is_shown(self, page) -> None:
        assert page.evaluate("[nploraAsk('a'), nploraAsk('b'), nploraAsk('a')]") == ["1", "1", "2"]
        assert page.evaluate("nploraAnswered('a', '2 <nplora:x:y>\\nz', 'before', '2')") == ["<nplora:x:y>\nz", "2"]
        assert page.evaluate("nploraAnswered('b', '1 ', 'before', '1')") == ["", "1"]

    def test_what_is_shown_is_marked_as_old_until_the_newest_is_answered(self, page) -> None:
        page.evaluate("gradioApp().insertAdjacentHTML('beforeend', '<p id=line>told before</p>')")
        old = page.locator("#line[data-nplora-awaited]")
        page.evaluate("nploraAsk('line'), nploraAsk('line'), nploraAnswered('line', '1 x', 'y', '2')")
        assert old.count() == 1
        page.evaluate("nploraAnswered('line', '2 x', 'y', '2')")
        assert old.count() == 0

    def test_an_older_one_is_dropped_and_the_newest_put_again(self, page) -> None:
        page.evaluate("nploraAsk('a'), nploraAsk('a')")
        shown, again = page.evaluate("nploraAnswered('a', '1 old', 'before', '2')")
        assert shown == "before"
        assert again.startswith("2.")
        assert page.evaluate("question => nploraAnswered('a', `${question} new`, 'before', question)", again) == [
            "new",
            again,
        ]
        assert page.evaluate("nploraAnswered('a', '1 old', 'new', '2')")[1] != again


class TestCards:
    @pytest.fixture
    def cards(self, page) -> sync_api.Page:
        for tab in ("txt2img", "img2img"):
            for name in ("dog", *ODD_NAMES):
                page.evaluate("([tab, name]) => addCard(tab, name)", [tab, name])
        self.button(page, "dog", "img2img").wait_for(state="attached")
        return page

    def button(self, page: sync_api.Page, name: str, tab: str = "txt2img") -> sync_api.Locator:
        card = page.locator(f"#{tab}_lora_cards .card").filter(has=page.get_by_text(name, exact=True))
        return card.locator(".nplora-card-button")

    def open(self, page: sync_api.Page, name: str, tab: str = "txt2img") -> None:
        self.button(page, name, tab).click()
        assert page.locator(".nplora-card-menu button").all_text_contents() == ["Use as content", "Use as style"]

    def closed(self, page: sync_api.Page) -> bool:
        return page.locator(".nplora-card-menu").count() == 0

    @pytest.mark.parametrize("name", ["dog", *ODD_NAMES])
    @pytest.mark.parametrize(("tab", "role"), [("txt2img", "content"), ("img2img", "style")])
    def test_a_choice_sets_the_role_and_nothing_else(self, cards, tab, role, name) -> None:
        self.open(cards, name, tab)
        cards.get_by_text(f"Use as {role}").click()
        cards.wait_for_function("roles.length")
        assert cards.evaluate("roles") == [f"{tab} {role}:{name}"]
        assert self.closed(cards)
        assert cards.evaluate("puts") == []

    def test_the_card_itself_still_works(self, cards) -> None:
        cards.get_by_text("dog", exact=True).first.click()
        assert cards.evaluate("puts") == ["dog"]

    def test_one_button_each_also_for_cards_that_come_later(self, cards) -> None:
        cards.evaluate("addCard('txt2img', 'late'); document.querySelector('.card').remove()")
        self.button(cards, "late").wait_for(state="attached")
        cards.evaluate("updated.forEach((callback) => callback())")
        counts = "[...document.querySelectorAll('.card')].map(c => c.querySelectorAll('.nplora-card-button').length)"
        assert cards.evaluate(counts) == [1] * 10

    def test_no_button_without_the_panel(self, cards) -> None:
        cards.evaluate("document.querySelector('.panel').remove(); addCard('txt2img', 'late')")
        cards.evaluate("updated.forEach((callback) => callback())")
        assert self.button(cards, "late").count() == 0

    @pytest.mark.parametrize(
        "leave",
        [
            lambda page: page.keyboard.press("Escape"),
            lambda page: page.locator("#nothing").click(),
            lambda page: page.locator("#elsewhere").focus(),
            lambda page: page.mouse.wheel(0, 200),
            lambda page: page.locator(".nplora-card-button").first.click(),
        ],
        ids=["escape", "click", "focus", "scroll", "again"],
    )
    def test_it_closes(self, cards, leave) -> None:
        self.open(cards, "dog")
        leave(cards)
        cards.wait_for_function("!document.querySelector('.nplora-card-menu')")
        assert cards.evaluate("roles") == []

    def test_another_card_takes_the_menu_over(self, cards) -> None:
        self.open(cards, "dog")
        self.open(cards, ODD_NAMES[0])
        cards.get_by_text("Use as style").click()
        cards.wait_for_function("roles.length")
        assert cards.evaluate("roles") == [f"txt2img style:{ODD_NAMES[0]}"]

    def test_by_keyboard_alone(self, cards) -> None:
        cards.evaluate("addEventListener('keydown', e => { if (e.key === 'Escape') window.interrupted = true })")
        cards.locator("#elsewhere").focus()
        cards.keyboard.press("Tab")
        assert cards.evaluate("getComputedStyle(document.activeElement).opacity") == "1"
        cards.keyboard.press("Enter")
        cards.keyboard.press("Escape")
        assert self.closed(cards)
        # The host stops a picture in the making at this key.
        assert cards.evaluate("window.interrupted") is None
        for key in ("Enter", "ArrowDown", "ArrowDown", "ArrowUp", "Enter"):
            cards.keyboard.press(key)
        cards.wait_for_function("roles.length")
        assert cards.evaluate("roles") == ["txt2img style:dog"]

    def test_it_stays_inside_the_window(self, cards) -> None:
        button = self.button(cards, "dog").bounding_box()
        width, height = int(button["x"] + button["width"]) + 2, int(button["y"] + button["height"]) + 2
        cards.set_viewport_size({"width": width, "height": height})
        self.open(cards, "dog")
        menu = cards.locator(".nplora-card-menu").bounding_box()
        assert menu["x"] >= 0
        assert menu["y"] >= 0
        assert menu["x"] + menu["width"] <= width
        assert menu["y"] + menu["height"] <= height

    def test_hidden_parts_are_not_shown(self, cards) -> None:
        assert not cards.locator("#txt2img_nplora_role").is_visible()
        assert not cards.locator("#txt2img_nplora_role_set").is_visible()


class TestCompletion:
    LATE = "van_gogh, late (v1.5) $1 [x]"

    def offered(self, page: sync_api.Page, *names: str) -> None:
        """Wait until the list shows just these names; without any, see that it is hidden and stays so."""
        if not names:
            page.wait_for_timeout(50)
            assert page.locator("#list").is_hidden()
            return
        shown = "[...document.querySelectorAll('#list:not([hidden]) li')].map(li => li.textContent)"
        page.wait_for_function(f"names => JSON.stringify({shown}) === JSON.stringify(names)", arg=list(names))

    def choose(self, page: sync_api.Page, name: str) -> None:
        page.locator("#list li").get_by_text(name, exact=True).click()

    def becomes(self, page: sync_api.Page, text: str) -> None:
        """Wait for the prompt, whose caret is `|`."""
        at = "(box => box.value.slice(0, box.selectionStart) + '|' + box.value.slice(box.selectionEnd))"
        page.wait_for_function(f"text => {at}(document.querySelector('#txt2img_prompt textarea')) === text", arg=text)

    def start(self, page: sync_api.Page, text: str) -> None:
        """A prompt that was there before, with the caret at `|`."""
        box = prompt_box(page)
        box.evaluate("(box, text) => { box.value = text; }", text.replace("|", ""))
        box.evaluate("(box, at) => box.setSelectionRange(at, at)", text.index("|"))

    def test_content_then_style(self, completing) -> None:
        completing.keyboard.type("a, <nplora:")
        self.offered(completing, "dog", "my dog", "vangogh", self.LATE)
        completing.keyboard.type("do")
        self.offered(completing, "dog", "my dog")
        self.choose(completing, "dog")
        self.becomes(completing, "a, <nplora:dog:|")
        self.offered(completing, "my dog", "vangogh", self.LATE)
        completing.keyboard.type("van")
        self.offered(completing, "vangogh", self.LATE)
        self.choose(completing, "vangogh")
        self.becomes(completing, "a, <nplora:dog:vangogh:0.5>|")
        self.offered(completing)

    def test_our_files_may_come_first(self, blank) -> None:
        blank.set_content(PAGE)
        add_ours(blank)
        add_tagcomplete(blank)
        blank.evaluate("start()")
        prompt_box(blank).focus()
        self.test_content_then_style(blank)

    def test_names_with_spaces_commas_and_signs(self, completing) -> None:
        completing.keyboard.type("<nplora:MY d")
        self.offered(completing, "my dog")
        self.choose(completing, "my dog")
        self.becomes(completing, "<nplora:my dog:|")
        self.offered(completing, "dog", "vangogh", self.LATE)
        completing.keyboard.type("van gogh, ")
        self.offered(completing, self.LATE)
        self.choose(completing, self.LATE)
        self.becomes(completing, f"<nplora:my dog:{self.LATE}:0.5>|")

    @pytest.mark.parametrize("how", ["typed", "chosen"])
    def test_the_styles_follow_a_name_that_was_typed_in_full(self, completing, how) -> None:
        completing.keyboard.type("<nplora:my dog")
        self.offered(completing, "my dog")
        if how == "typed":
            completing.keyboard.type(":")
        else:
            self.choose(completing, "my dog")
        self.offered(completing, "dog", "vangogh", self.LATE)

    @pytest.mark.parametrize(
        ("before", "typed", "name", "after"),
        [
            ("<nplora:|> b", "d", "dog", "<nplora:dog:|> b"),
            ("<nplora:dog:|> b", "v", "vangogh", "<nplora:dog:vangogh:0.5|> b"),
            ("<nplora:do|:vangogh:2> b", "g", None, "<nplora:dog|:vangogh:2> b"),
            ("<nplora:|g:vangogh:2> b", "o", "my dog", "<nplora:my dog|:vangogh:2> b"),
            ("<nplora:dog:|ogh:2:k=8> b", "g", "vangogh", "<nplora:dog:vangogh|:2:k=8> b"),
            ("|a photo", "<nplora:d", "dog", "<nplora:dog:|a photo"),
        ],
    )
    def test_what_follows_is_kept(self, completing, before, typed, name, after) -> None:
        self.start(completing, before)
        completing.keyboard.type(typed)
        if name is None:
            completing.wait_for_function("tagword === '<nplora:dog'")
            self.offered(completing)
        else:
            self.choose(completing, name)
        self.becomes(completing, after)

    def test_mu_comes_from_the_settings(self, completing) -> None:
        completing.evaluate("opts.nplora_mu = 'hard'")
        completing.keyboard.type("<nplora:dog:vang")
        self.choose(completing, "vangogh")
        self.becomes(completing, "<nplora:dog:vangogh:hard>|")

    @pytest.mark.parametrize(
        "text",
        [
            "<nplora:cat|",
            "<nplora:dog:vangogh:1|",
            "<nplora:k=|",
            "<nplora:dog:vangogh:k=8|",
            "<nplora:my dog>|",
            "<nplora:dog:vangogh:1, mast|>",
        ],
    )
    def test_all_are_silent_where_our_tag_needs_no_name(self, completing, text) -> None:
        typed, after = text.split("|")
        self.start(completing, f"|{after}")
        completing.keyboard.insert_text(typed[:-1])
        completing.wait_for_timeout(50)
        completing.keyboard.insert_text(typed[-1])
        assert completing.evaluate("tagword") == typed
        self.offered(completing)

    @pytest.mark.parametrize(
        "before", ["", "<nplora:dog:vangogh:0.5>, ", "<nplora:dog:vangogh a photo, ", "<nplora:dog, ", "<nplora:\n"]
    )
    def test_others_complete_outside_our_tag(self, completing, before) -> None:
        completing.keyboard.type(f"{before}mast")
        self.offered(completing, "masterpiece", "mastiff")
        self.choose(completing, "mastiff")
        self.becomes(completing, f"{before}mastiff, |")
        prompt_box(completing).focus()
        completing.keyboard.type("<lora:d")
        completing.locator("#list li").get_by_text("lora dog.safetensors", exact=True).click()
        self.becomes(completing, f"{before}mastiff, <lora:lora dog.safetensors:1> |")

    def test_wildcards_of_others_are_not_ours(self, completing) -> None:
        completing.evaluate(
            "PARSERS.push({triggerCondition: () => tagword === 'w',"
            " parse: () => [new AutocompleteResult('dog', ResultType.wildcardFile)]})"
        )
        completing.keyboard.type("<nplora:dog:vangogh:1> w")
        self.choose(completing, "dog")
        self.becomes(completing, "<nplora:dog:vangogh:1> __dog__|")

    def test_an_inserted_tag_opens_no_list(self, completing) -> None:
        completing.evaluate("nploraInsert('txt2img', '<nplora:my dog:vangogh:0.5>')")
        completing.wait_for_function("tagword === '<nplora:my dog:vangogh:0.5>'")
        self.offered(completing)


@pytest.mark.parametrize("missing", ["PARSERS", "QUEUE_SANITIZE", "autocomplete", "AutocompleteResult"])
def test_a_changed_tagcomplete_is_left_alone(blank, missing) -> None:
    blank.set_content(PAGE)
    add_tagcomplete(blank, TAGCOMPLETE.replace(missing, f"other{missing}"))
    add_ours(blank)
    blank.evaluate("start()")
    prompt_box(blank).focus()
    blank.keyboard.type("<nplora:d")
    blank.locator("#list li").get_by_text("lora dog.safetensors", exact=True).wait_for()


def test_all_names_are_ours(page) -> None:
    """Nothing of ours can stand in another script's way."""
    names = [line for file in OURS for line in file.read_text("utf8").splitlines()]
    declared = [line.split()[1] for line in names if line.startswith(("function ", "const ", "let ", "class ", "var "))]
    assert declared
    assert [name for name in declared if not name.lower().startswith("nplora")] == []
