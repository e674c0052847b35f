"""Prompt, panel and plot become one prompt."""

from __future__ import annotations

import operator

import pytest

from lib_nplora.errors import RequestError
from lib_nplora.request.tag import parse_tag
from lib_nplora.webui.compose import Composed, compose

PANEL = parse_tag(["dog", "vangogh", "2"])
TAG = "<nplora:dog:vangogh:2>"
ALIASES = {"hund": "dog"}


def same(one: str, other: str) -> bool:
    return operator.eq(*(ALIASES.get(name, name) for name in (one, other)))


def composed(prompt, panel=None, **values) -> Composed:
    return compose(prompt, panel, {name.replace("_", " "): text for name, text in values.items()}, same)


def test_without_panel_and_plot_nothing_changes():
    for prompt in ("", "a cat", "a <nplora:x:y> cat <nplora:oops>"):
        assert composed(prompt) == Composed(prompt)


def test_the_panel_adds_its_tag():
    assert composed("a cat", PANEL) == Composed(f"a cat {TAG}", by_panel=True)
    assert composed("", PANEL) == Composed(TAG, by_panel=True)
    assert composed("a <nplora:x:y> cat", PANEL) == Composed(f"a <nplora:x:y> cat {TAG}", by_panel=True)


@pytest.mark.parametrize(
    "own", ["<nplora:dog:vangogh:1>", "<nplora:hund:vangogh>", "<lora:dog:1:role=content> <lora:vangogh:1:role=style>"]
)
def test_the_prompt_wins_over_the_panel_for_its_pair(own):
    prompt = f"a {own} cat"
    found = composed(prompt, PANEL)
    assert found.prompt == prompt
    assert not found.by_panel
    assert found.comments == (f"the prompt's own tag for this pair is used, not the panel's: {own}",)


def test_the_same_tag_in_both_is_nothing_to_speak_of():
    assert composed(f"a {TAG} cat", PANEL) == Composed(f"a {TAG} cat")


def test_swapped_roles_are_another_pair():
    assert composed("<nplora:vangogh:dog:2>", PANEL).by_panel


@pytest.mark.parametrize(
    ("values", "tag"),
    [
        ({"mu": "0.1"}, "<nplora:dog:vangogh:0.1>"),
        ({"mu": "hard"}, "<nplora:dog:vangogh:hard>"),
        ({"content": "cat"}, "<nplora:cat:vangogh:2>"),
        ({"style": "ink"}, "<nplora:dog:ink:2>"),
        ({"content_weight": "0.5"}, "<nplora:dog:vangogh:2:c=0.5>"),
        ({"style_weight": "1.25"}, "<nplora:dog:vangogh:2:s=1.25>"),
        ({"k": "90%"}, "<nplora:dog:vangogh:2:k=90%>"),
        ({"method": "direct"}, "<nplora:dog:vangogh:method=direct>"),
        ({"mu": "1", "method": "reverse", "content": "cat"}, "<nplora:cat:vangogh:1:method=reverse>"),
        ({"mu_by_block": "mid@1 out@hard"}, "<nplora:dog:vangogh:2,mid@1,out@hard>"),
        ({"style_weight_by_block": "in@0"}, "<nplora:dog:vangogh:2:s=1,in@0>"),
    ],
)
def test_a_plot_varies_the_panel_or_else_the_prompt(values, tag):
    assert composed("a cat", PANEL, **values) == Composed(f"a cat {tag}", by_panel=True)
    assert composed(f"a {TAG} cat", None, **values) == Composed(f"a {tag} cat")
    assert composed(f"a {TAG} cat", PANEL, **values) == Composed(f"a {tag} cat")
    assert composed(f"a {TAG} cat <nplora:x:y>", None, **values) == Composed(f"a {tag} cat <nplora:x:y>")


NO_MU = ("[NP-LoRA] mu has no effect with method=klora",)


@pytest.mark.parametrize(
    ("prompt", "panel", "values", "expected"),
    [
        ("a <nplora:x:y:method=klora>", None, {}, Composed("a <nplora:x:y:method=klora>", comments=NO_MU)),
        (
            "a <nplora:x:y:2>",
            None,
            {"method": "klora", "alpha": "3"},
            Composed("a <nplora:x:y:method=klora:alpha=3>", comments=NO_MU),
        ),
        ("a", PANEL, {"method": "klora"}, Composed("a <nplora:dog:vangogh:method=klora>", True, NO_MU)),
        (
            "a",
            None,
            {"content": "x", "style": "y", "method": "klora"},
            Composed("a <nplora:x:y:method=klora>", comments=NO_MU),
        ),
    ],
)
def test_a_plot_of_what_the_method_does_not_read_is_remarked_on_and_not_written(prompt, panel, values, expected):
    """Whatever the order of the axes."""
    for cell in ({"mu": "0.1", **values}, {**values, "mu": "0.5"}):
        assert composed(prompt, panel, **cell) == expected


def test_a_plot_varies_roles():
    prompt = "a <lora:dog:0.8:role=content> <lora:vangogh:1:role=style:mu=0.5>"
    assert composed(prompt, mu="2").prompt == "a <lora:dog:0.8:role=content:mu=2> <lora:vangogh:1:role=style>"
    assert composed(prompt, content_weight="1").prompt == ("a <lora:dog:1:role=content> <lora:vangogh:1:role=style>")


def test_a_plot_says_which_keys_of_others_it_leaves_out():
    found = composed("<lora:dog:1:role=content:start=2> <lora:ink:1:role=style>", mu="2")
    assert found.prompt == "<lora:dog:1:role=content:mu=2> <lora:ink:1:role=style>"
    assert found.comments == ("'start=' of 'dog' has no effect: lora-block-weight does not reach a LoRA that is fused",)


def test_a_plot_of_both_names_needs_no_fusion_to_vary():
    assert composed("a cat", content="dog", style="ink", mu="1") == Composed("a cat <nplora:dog:ink:1>")


def test_a_prompt_without_a_fusion_is_left_alone_by_a_plot():
    assert composed("a cat", mu="1") == Composed("a cat")


def test_a_plot_does_not_double_a_pair_that_the_prompt_has():
    assert composed("a <nplora:cat:vangogh:1>", PANEL, content="cat") == Composed(
        "a <nplora:cat:vangogh:1>",
        comments=("the prompt's own tag for this pair is used, not the panel's: <nplora:cat:vangogh:1>",),
    )


def test_a_plot_of_names_among_several_is_refused():
    prompt = "<lora:dog:1:role=content> <lora:cat:1:role=content> <lora:ink:1:role=style>"
    with pytest.raises(RequestError, match="2 contents, so an axis cannot tell which to change"):
        composed(prompt, content="hat")
    assert "mu=1" in composed(prompt, mu="1").prompt


def test_a_plot_of_a_tag_that_cannot_be_read_says_why():
    with pytest.raises(RequestError, match="the style is missing"):
        composed("<nplora:dog>", mu="1")
