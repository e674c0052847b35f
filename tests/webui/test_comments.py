"""Comments in a prompt, as each host cuts them out."""

from __future__ import annotations

import re
import sys
import types

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib_nplora.request.tag import parse_tag
from lib_nplora.webui import prompt_text
from lib_nplora.webui.comments import visible
from lib_nplora.webui.compose import compose

TAG = "<nplora:dog:vangogh:0.5>"

STRIPS = {
    "#": lambda prompt: re.sub("#.*", "", prompt),
    "# // /**/": lambda prompt: re.sub("(#|//).*", "", re.sub(r"/\*.*?\*/", "", prompt, flags=re.DOTALL)),
}


@pytest.fixture(params=STRIPS)
def strip(request, monkeypatch):
    """What cuts the comments out in the end."""
    options = types.SimpleNamespace(enable_prompt_comments=True)
    comments = types.SimpleNamespace(strip_comments=STRIPS[request.param], options=options)
    for name, module in {
        "modules": types.ModuleType("modules"),
        "modules.shared": types.SimpleNamespace(opts=options),
        "modules.processing_scripts": types.ModuleType("modules.processing_scripts"),
        "modules.processing_scripts.comments": comments,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    return comments


PIECES = ["a cat", " ", "\n", TAG, "# note", "// note", "/* note */", "http://x.y", "<nplora:x:y>"]
prompts = st.lists(st.sampled_from(PIECES), max_size=7).map("".join)
in_one_host = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@in_one_host
@given(prompts)
def test_what_is_found_is_what_the_host_leaves(strip, prompt):
    left = strip.strip_comments(prompt)
    assert [x.asked for x in prompt_text.find(prompt)] == [x.asked for x in prompt_text.find(left)]
    assert len(visible(prompt)) == len(prompt)


@in_one_host
@given(prompts)
def test_no_comment_swallows_what_is_added(strip, prompt):
    assert strip.strip_comments(prompt_text.added(prompt, TAG)).endswith(TAG)


@in_one_host
@given(prompts)
def test_taking_out_undoes_adding(strip, prompt):
    together = prompt_text.added(prompt, "<nplora:new:pair:1>")
    assert prompt_text.without(together, prompt_text.find(together)[-1]) == prompt


def test_a_host_that_keeps_comments_keeps_their_tags(strip):
    strip.options.enable_prompt_comments = False
    assert len(prompt_text.find(f"# {TAG}")) == 1
    assert prompt_text.added("# note", TAG) == f"# note {TAG}"


def test_a_tag_in_a_comment_does_not_win_over_the_panel(strip):
    panel = parse_tag(["dog", "vangogh", "2"])
    assert compose(f"a cat # {TAG}", panel, {}, str.__eq__).by_panel


def test_a_name_that_begins_a_comment_is_refused(strip):
    with pytest.raises(Exception, match=r"takes a part of <nplora:C#:vangogh:0.5> for a comment: rename the LoRA"):
        compose("a cat", parse_tag(["C#", "vangogh"]), {}, str.__eq__)
