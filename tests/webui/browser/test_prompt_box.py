"""The prompt box: tags go in, and come out again."""

from __future__ import annotations

from playwright.sync_api import expect

TAG = "<nplora:dog:vangogh:0.5>"


def test_insert_puts_the_tag_there_once(paired):
    paired.prompt.fill("a cat")
    paired.press("insert")
    expect(paired.prompt).to_have_value(f"a cat {TAG}")
    paired.press("insert")
    expect(paired.prompt).to_have_value(f"a cat {TAG}")


def test_insert_replaces_the_tag_of_that_pair(paired):
    paired.prompt.fill(f"a {TAG} cat, <nplora:hat:vangogh>")
    paired.tick("hard", True)
    expect(paired.tag).to_have_value("<nplora:dog:vangogh:hard>")
    paired.press("insert")
    expect(paired.prompt).to_have_value("a <nplora:dog:vangogh:hard> cat, <nplora:hat:vangogh>")


def test_insert_replaces_a_tag_with_strengths_by_block(paired):
    paired.prompt.fill("a <nplora:dog:vangogh:0.5,mid@2,out@hard:c=1,in@0.6> cat")
    paired.add_block("mu_by_block", "mid", "mid@0.5")
    paired.text("style_by_block").fill("out1@0")
    tag = "<nplora:dog:vangogh:0.5,mid@0.5:s=1,out1@0>"
    expect(paired.tag).to_have_value(tag)
    paired.press("insert")
    expect(paired.prompt).to_have_value(f"a {tag} cat")


def test_insert_can_be_undone(paired):
    paired.prompt.press_sequentially("a cat")
    paired.press("insert")
    expect(paired.prompt).to_have_value(f"a cat {TAG}")
    paired.prompt.press("Control+Z")
    expect(paired.prompt).to_have_value("a cat")
    paired.prompt.press("Control+Shift+Z")
    expect(paired.prompt).to_have_value(f"a cat {TAG}")


def test_python_sees_what_was_inserted(paired):
    paired.prompt.fill("a cat")
    paired.press("insert")
    paired.toggle()
    expect(paired.switch).not_to_be_checked()
    assert paired.generate()["prompts"][0] == f"a cat {TAG}"


def test_without_a_tag_nothing_is_inserted(panel):
    panel.prompt.fill("a cat")
    panel.choose("content", "dog")
    expect(panel.part("insert")).to_be_disabled()
