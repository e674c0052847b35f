"""Fusions in the text of a prompt."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_nplora.errors import RequestError
from lib_nplora.request.tag import parse_tag
from lib_nplora.webui import prompt_text

TAG = "<nplora:dog:vangogh:0.5>"
ROLES = "<lora:dog:0.8:role=content> by <lora:vangogh:1:role=style:mu=0.5>"

prompts = st.lists(st.sampled_from(["a cat", " ", "\n", ",", TAG, "<lora:hat:1>", "(x:1.2)", "#"]), max_size=6).map(
    "".join
)


def host_parse(prompt: str) -> list[str]:
    """The tags that a host finds, in its own words: name, colon, anything but '>'."""
    return re.findall(r"<(\w+:[^>]+)>", prompt)


def test_every_spelling_is_found_where_it_stands():
    prompt = f"a {TAG} b {ROLES} c <nplora:x:y> <lora:hat:1>"
    first, second, roles = prompt_text.find(prompt)
    assert [prompt[slice(*span)] for span in first.spans] == [TAG]
    assert [prompt[slice(*span)] for span in second.spans] == ["<nplora:x:y>"]
    assert [prompt[slice(*span)] for span in roles.spans] == ROLES.split(" by ")
    assert [x.asked.by_role for x in (first, second, roles)] == [False, False, True]
    assert roles.asked.request.contents[0].name == "dog"


def test_a_tag_that_cannot_be_read_is_found_with_its_reason():
    (found,) = prompt_text.find("a <nplora:dog>")
    assert isinstance(found.asked.request, RequestError)


@given(prompts)
def test_taking_out_undoes_adding(prompt):
    together = prompt_text.added(prompt, "<nplora:new:pair:1>")
    assert prompt_text.without(together, prompt_text.find(together)[-1]) == prompt


@given(prompts)
def test_an_added_tag_is_the_last_that_a_host_reads(prompt):
    assert host_parse(prompt_text.added(prompt, TAG)) == [*host_parse(prompt), TAG[1:-1]]


def test_a_tag_is_spelled_anew_in_its_place():
    prompt = f"a {TAG}, b"
    (found,) = prompt_text.find(prompt)
    assert (
        prompt_text.respelled(prompt, found, parse_tag(["dog", "vangogh", "hard"])) == "a <nplora:dog:vangogh:hard>, b"
    )


def test_roles_are_spelled_anew_as_roles():
    prompt = f"a {ROLES} c"
    (found,) = prompt_text.find(prompt)
    changed = prompt_text.respelled(prompt, found, parse_tag(["dog", "vangogh", "2"]))
    assert changed == "a <lora:dog:1:role=content:mu=2> <lora:vangogh:1:role=style> by c"
    (again,) = prompt_text.find(changed)
    assert again.asked.request == parse_tag(["dog", "vangogh", "2"])


@pytest.mark.parametrize(
    ("prompt", "after"),
    [
        ("<nplora:dog:vangogh:1:c=2> <lora:dog:1>", "<nplora:DOG:VANGOGH:1:c=2> <lora:dog:1>"),
        (ROLES, "<lora:DOG:0.8:role=content> by <lora:VANGOGH:1:role=style:mu=0.5>"),
        ("<nplora:dog> <hypernet:dog:1> a dog", "<nplora:DOG> <hypernet:dog:1> a dog"),
    ],
)
def test_names_change_in_fusions_alone(prompt, after):
    assert prompt_text.renamed(prompt, str.upper) == after


@given(prompts)
def test_keeping_the_names_changes_nothing(prompt):
    assert prompt_text.renamed(prompt, lambda name: name) == prompt
