"""The prompt box: tags go in, and come out again."""

from __future__ import annotations

from playwright.sync_api import expect

TAG = "<nplora:dog:vangogh:0.5>"


def test_insert_puts_the_tag_there_once(panel):
    panel.prompt.fill("a cat")
    panel.choose_pair()
    panel.press("insert")
    expect(panel.prompt).to_have_value(f"a cat {TAG}")
    panel.press("insert")
    expect(panel.prompt).to_have_value(f"a cat {TAG}")


def test_insert_replaces_the_tag_of_that_pair(panel):
    panel.prompt.fill(f"a {TAG} cat, <nplora:hat:vangogh>")
    panel.choose_pair()
    panel.tick("hard", True)
    expect(panel.tag).to_have_value("<nplora:dog:vangogh:hard>")
    panel.press("insert")
    expect(panel.prompt).to_have_value("a <nplora:dog:vangogh:hard> cat, <nplora:hat:vangogh>")


def test_insert_replaces_a_tag_with_strengths_by_block(panel):
    panel.prompt.fill("a <nplora:dog:vangogh:0.5,mid@2,out@hard:c=1,in@0.6> cat")
    panel.choose_pair()
    panel.add_block("mu_by_block", "mid", "mid@0.5")
    panel.text("style_by_block").fill("out1@0")
    tag = "<nplora:dog:vangogh:0.5,mid@0.5:s=1,out1@0>"
    expect(panel.tag).to_have_value(tag)
    panel.press("insert")
    expect(panel.prompt).to_have_value(f"a {tag} cat")


def test_insert_can_be_undone(panel):
    panel.prompt.press_sequentially("a cat")
    panel.choose_pair()
    panel.press("insert")
    expect(panel.prompt).to_have_value(f"a cat {TAG}")
    panel.prompt.press("Control+Z")
    expect(panel.prompt).to_have_value("a cat")
    panel.prompt.press("Control+Shift+Z")
    expect(panel.prompt).to_have_value(f"a cat {TAG}")


def test_python_sees_what_was_inserted(panel):
    panel.prompt.fill("a cat")
    panel.choose_pair()
    panel.press("insert")
    panel.toggle()
    expect(panel.switch).not_to_be_checked()
    assert panel.generate()["prompts"][0] == f"a cat {TAG}"


def test_without_a_tag_nothing_is_inserted(panel):
    panel.prompt.fill("a cat")
    panel.choose("content", "dog")
    expect(panel.part("insert")).to_be_disabled()
