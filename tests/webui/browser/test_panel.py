"""The panel's controls, each by the tag that it makes."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Route, expect

from lib_nplora.methods.table import methods, parameters
from lib_nplora.methods.texts import format_number

from .panel import Panel
from .webui import NAMES, ODD


def test_it_starts_closed_off_and_says_what_is_missing(page):
    panel = Panel(page, "txt2img")
    expect(panel.switch).not_to_be_checked()
    expect(panel.tag).to_be_hidden()
    panel.toggle()
    expect(panel.switch).to_be_checked()
    expect(panel.part("k")).to_be_hidden()
    expect(panel.tag).to_have_value(re.compile("choose a content LoRA and a style LoRA"))
    expect(panel.tag).not_to_be_editable()


def test_typing_finds_loras(panel):
    found = panel.options("content", "VAN")
    expect(found).to_have_count(2)
    assert {text.strip().removeprefix("✓").strip() for text in found.all_inner_texts()} == {"vangogh", ODD}
    found.filter(has_text=ODD).click()
    panel.choose("style", "dog", typed="do")
    expect(panel.tag).to_have_value(f"<nplora:{ODD}:dog:0.5>")


def test_all_loras_are_offered(paired):
    assert paired.offered("style") == set(NAMES)
    assert paired.offered("content") == set(NAMES)


@pytest.mark.parametrize("key", ["Enter", "Tab"])
def test_half_a_name_is_never_taken(paired, key):
    """It is completed, or refused: that differs between Gradios."""
    paired.type_text("style", "vangog", key)
    paired.tick("hard", True)
    expect(paired.tag).to_have_value(re.compile("^<nplora:dog:vangogh:hard>$|no LoRA called 'vangog'.*'vangogh'"))


def test_mu_by_number(paired):
    for typed, shown in (("2", "2"), ("0.05", "0.05"), ("0", "0"), ("0.123", "0.123")):
        paired.type_into("mu", typed)
        expect(paired.tag).to_have_value(f"<nplora:dog:vangogh:{shown}>")
        position = float(paired.part("mu_position").locator("input[type=range]").input_value())
        assert position == pytest.approx((float(typed) / 10) ** (1 / 3), abs=1e-3)


@pytest.mark.parametrize("share", [0.1, 0.37, 0.92])
def test_mu_by_slider(paired, share):
    position = paired.slide("mu_position", share)
    assert position == pytest.approx(share, abs=0.05)
    mu = float(f"{10 * position**3:.2g}")
    expect(paired.tag).to_have_value(f"<nplora:dog:vangogh:{format_number(mu)}>")
    expect(paired.part("mu").locator("input")).to_have_value(format_number(mu))


def test_hard(paired):
    paired.type_into("mu", "2")
    paired.tick("hard", True)
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:hard>")
    paired.tick("hard", False)
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:2>")


def test_weights(paired):
    paired.type_into("content_weight", "0.85")
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:0.5:c=0.85>")
    paired.type_into("style_weight", "1.1")
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:0.5:c=0.85:s=1.1>")
    weight = paired.slide("style_weight", 0.25)
    expect(paired.tag).to_have_value(f"<nplora:dog:vangogh:0.5:c=0.85:s={format_number(weight)}>")


def test_k_by_choice_or_own_text(paired):
    paired.choose("k", "90%")
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:0.5:k=90%>")
    paired.type_text("k", "3", "Tab")
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:0.5:k=3>")
    paired.type_text("k", "lots", "Tab")
    expect(paired.tag).to_have_value(re.compile("k=lots"))


def test_method(paired):
    paired.choose("method", "direct")
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:method=direct>")


def _offered(panel, *names):
    """These settings of methods are there to be filled in, and no others."""
    for name, parameter in parameters().items():
        parts = [name, *([f"{name}_by_block", f"{name}_by_block_add"] if parameter.by_block else [])]
        for part in (*parts, *(["mu_position", "hard"] if name == "mu" else [])):
            expect(panel.part(part)).to_be_visible(visible=name in names)


def test_each_method_offers_what_it_reads(paired):
    _offered(paired, *(one.name for one in methods()["np"].parameters))
    expect(paired.part("mu_recipe")).to_be_visible()
    about = paired.part("about").locator("p")
    expect(about).to_have_text(methods()["np"].about)
    for name in ("klora", "dare", "switch", "ties", "direct", "hard", "reverse"):
        method = methods()[name]
        paired.choose("method", name)
        mu = ":0.5" if method.parameter("mu") else ""
        expect(paired.tag).to_have_value(f"<nplora:dog:vangogh{mu}:method={name}>")
        expect(about).to_have_text(method.about)
        _offered(paired, *(one.name for one in method.parameters))
        expect(paired.part("mu_recipe")).to_be_hidden()


def test_a_setting_left_empty_shows_the_methods_own(paired):
    for method, beta in (("klora", "0.5"), ("klora*", "1.3")):
        paired.choose("method", method)
        expect(_box(paired, "beta")).to_have_attribute("placeholder", beta)
        expect(_box(paired, "beta")).to_have_value("")


def test_the_methods_settings(paired):
    paired.choose("method", "klora")
    _box(paired, "alpha").fill("2")
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:method=klora:alpha=2>")
    _box(paired, "beta").fill("0.30")
    paired.choose("scope", "all")
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:method=klora:alpha=2:beta=0.3:scope=all>")
    _box(paired, "beta").fill("0,3")
    expect(paired.tag).to_have_value(re.compile("beta=0,3 is not a number. Write 0.3."))
    paired.choose("method", "dare")
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:method=dare>")
    _box(paired, "density").fill("20%")
    _box(paired, "seed").fill("7")
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:method=dare:density=0.2:seed=7>")
    _box(paired, "seed").fill("-1")
    expect(paired.tag).to_have_value(re.compile("seed=-1 is not a whole number"))


def _box(panel, name):
    return panel.part(name).locator("input, textarea")


def test_without_text_encoder(paired):
    paired.tick("te", False)
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:0.5:te=0>")


def test_swapped_roles(paired):
    paired.type_into("content_weight", "0.5")
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:0.5:c=0.5>")
    paired.press("swap")
    expect(paired.tag).to_have_value("<nplora:vangogh:dog:0.5:s=0.5>")
    paired.press("swap")
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:0.5:c=0.5>")


def test_the_chooser_writes_a_block_into_its_line_once(paired):
    _offered_blocks(paired)
    paired.add_block("mu_by_block", "mid", "mid@0.5")
    paired.type_into("mu", "2")
    paired.add_block("mu_by_block", "in4", "mid@0.5,in4@2")
    paired.add_block("mu_by_block", "mid", "mid@0.5,in4@2")
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:2,in4@2,mid@0.5>")
    paired.type_into("style_weight", "0.8")
    paired.add_block("style_by_block", "in", "in@0.8")
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:2,in4@2,mid@0.5:s=0.8,in@0.8>")


def test_a_line_by_block_is_typed_too(paired):
    paired.text("mu_by_block").fill("out@hard mid@2")
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:0.5,mid@2,out@hard>")
    paired.tick("hard", True)
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:hard,mid@2,out@hard>")
    for wrong, told in (
        ("middle@2", "no block 'middle'. Did you mean 'mid'? Blocks are te, in, mid, double, single and out"),
        ("mid", "'mid' is no exception by block: write it as block@value, such as mid@2"),
        ("mid@x", "mu=x is not a number"),
    ):
        paired.text("mu_by_block").fill(wrong)
        expect(paired.tag).to_have_value(re.compile(re.escape(told)))


def test_swapped_roles_take_their_lines_along(paired):
    paired.text("content_by_block").fill("in@0.6")
    paired.text("style_by_block").fill("out1@0,mid@2")
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:0.5:c=1,in@0.6:s=1,mid@2,out1@0>")
    paired.press("swap")
    expect(paired.tag).to_have_value("<nplora:vangogh:dog:0.5:c=1,mid@2,out1@0:s=1,in@0.6>")
    expect(paired.text("content_by_block")).to_have_value("out1@0,mid@2")


def test_a_lora_that_is_added_is_there_after_refresh(panel, webui):
    late = webui.add_lora("late", seed=9)
    panel.refresh("content", "late")
    panel.choose_pair("late", "vangogh")
    late.unlink()
    panel.refresh("style", "late", there=False)


def test_a_list_says_where_the_chosen_file_lies_if_others_have_its_name(panel, webui):
    twins = [webui.add_lora(f"{folder}/twin", seed) for seed, folder in enumerate(("pets", "people"))]
    panel.refresh("content", "twin")
    panel.choose_pair("twin", "vangogh")
    expect(panel.part("content")).to_contain_text(re.compile("(pets|people)/twin.safetensors"))
    panel.choose_pair("dog", "vangogh")
    expect(panel.part("content")).to_contain_text("the subject")
    for twin in twins:
        twin.unlink()
        twin.parent.rmdir()
    panel.refresh("style", "twin", there=False)


def test_a_new_page_works_after_refresh(panel, webui):
    """The Forges' own button leaves the dropdown with choices that its checks cannot read."""
    panel.refresh("content", "dog")
    webui.open(panel.page)
    panel.paste("a cat <nplora:dog:vangogh:2>\nSteps: 20, Sampler: Euler, Seed: 1, Size: 512x512")
    expect(panel.tag).to_have_value("<nplora:dog:vangogh:2>")


def test_changes_in_quick_succession_all_arrive(paired):
    box = paired.part("te").locator("input")
    for _ in range(7):
        box.click()
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:0.5:te=0>")
    paired.press("swap")
    box.click()
    expect(paired.tag).to_have_value("<nplora:vangogh:dog:0.5>")


_MAKES = """(part) => {
    const { components, dependencies } = window.gradio_config;
    const { id } = components.find(({ props }) => props?.elem_id === part);
    return dependencies.findIndex(({ outputs, backend_fn }) => backend_fn && outputs.includes(id));
}"""
"""The number of the server's function that makes a part."""


def test_an_answer_that_comes_late_does_not_stay(panel):
    """The tag's answer for `mid@2` alone is held back until the panel asks for something else."""
    panel.choose_pair()
    asks_for_tag = panel.page.evaluate(_MAKES, f"{panel.tab}_nplora_tag_answer")
    held: list[Route] = []

    def hold(route: Route) -> None:
        asked = route.request.post_data_json or {}
        if not held and asked.get("fn_index") == asks_for_tag and "mid@2" in asked["data"]:
            held.append(route)
        else:
            route.continue_()

    panel.page.route("**/run/predict*", hold)
    panel.text("mu_by_block").fill("mid@2")
    for _ in range(100):
        if held:
            break
        panel.page.wait_for_timeout(100)
    number, *_ = held[0].request.post_data_json["data"]
    assert re.fullmatch(r"\d+", number)
    panel.tick("hard", True)
    panel.page.wait_for_timeout(500)
    expect(panel.tag).to_have_value("<nplora:dog:vangogh:0.5>")
    held[0].continue_()
    expect(panel.tag).to_have_value("<nplora:dog:vangogh:hard,mid@2>")
    panel.page.wait_for_timeout(1000)
    expect(panel.tag).to_have_value("<nplora:dog:vangogh:hard,mid@2>")


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_the_tag_line_says_what_it_waits_for_and_insert_waits_too(page, tab):
    page.set_viewport_size({"width": 400, "height": 1000})
    panel = Panel(page, tab)
    panel.open_tab(tab)
    panel.toggle()
    insert = panel.part("insert")
    expect(panel.tag).to_have_value("No tag yet: choose a content LoRA and a style LoRA")
    assert panel.tag.evaluate("box => box.scrollHeight <= box.clientHeight")
    expect(insert).to_be_disabled()
    panel.choose("content", "dog")
    expect(panel.tag).to_have_value("No tag yet: choose a style LoRA")
    expect(insert).to_be_disabled()
    panel.choose("style", "vangogh")
    expect(insert).to_be_enabled()
    panel.choose("style", "dog")
    expect(panel.tag).to_have_value("No tag yet: content and style are the same LoRA")
    expect(insert).to_be_disabled()


def test_the_chooser_lists_the_blocks_of_the_loaded_model(panel):
    assert _offered_blocks(panel) == {"te", "in", "mid", "te1", "in1", "in4"}


def _offered_blocks(panel):
    """Once the chooser knows the loaded model."""
    for _ in range(300):
        found = panel.offered("mu_by_block_add")
        panel.entry("mu_by_block_add").blur()
        if "in5" not in found:
            break
        panel.page.wait_for_timeout(100)
    return found


def test_a_verdict_appears_by_itself_and_follows_mu(panel):
    verdict = panel.part("verdict").locator("p")
    expect(verdict).to_have_count(0)
    panel.choose_pair()
    expect(verdict).to_have_text(re.compile("^The two share .* mu = 0.5 removes"))
    panel.type_into("mu", "2")
    expect(verdict).to_have_text(re.compile("mu = 2 removes"))
    panel.choose("style", "dog")
    expect(panel.tag).to_have_value(re.compile("the same LoRA"))
    expect(verdict).to_have_count(0)
