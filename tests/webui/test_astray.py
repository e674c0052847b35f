"""What is meant as a tag and is none."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from lib_nplora.webui.astray import astray


def host_parsed(prompt: str):
    """(what is left of a prompt, its tags), as the hosts have it."""
    data: dict[str, list[SimpleNamespace]] = {}
    for name, text in re.findall(r"<(\w+):([^>]+)>", prompt):
        data.setdefault(name, []).append(SimpleNamespace(items=text.split(":")))
    return re.sub(r"<(\w+):([^>]+)>", "", prompt), data


def told(prompt: str, negative: str = "") -> list[str]:
    left, data = host_parsed(prompt)
    return astray(SimpleNamespace(prompts=[left], negative_prompts=[negative]), data)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a cat <nplora:dog:vangogh>",
        "<NPLORA:dog:vangogh> <lora:hat:1> <lyco:x> <hypernet:y> <lora> < lora:hat:1> <LORA:hat:1>",
        "a < b, <3, <<>>, nplora:dog:vangogh, (nplora:1.2), <flora:1> <glora:x:y>",
    ],
)
def test_what_is_a_tag_or_none_of_ours_is_left_alone(prompt):
    assert told(prompt, "a bird <lora:hat:1>") == []


@pytest.mark.parametrize(
    ("prompt", "written"),
    [
        ("< nplora:dog:vangogh>", "<nplora:dog:vangogh>"),
        ("<nplora :dog:vangogh:hard>", "<nplora:dog:vangogh:hard>"),
        ("<nplora>", "<nplora:content:style>"),
        ("<nplora:>", "<nplora:content:style>"),
        ("<np lora:dog:vangogh>", "<nplora:dog:vangogh>"),
        ("<NP-LoRA:dog:vangogh:mu=2>", "<nplora:dog:vangogh:mu=2>"),
        ("<nplora;dog:vangogh>", "<nplora:dog:vangogh>"),
        ("<nplora dog vangogh>", "<nplora:content:style>"),
        ("<np_lora:dog: vangogh>", "<nplora:dog:vangogh>"),
        ("<nplor:dog:vangogh>", "<nplora:dog:vangogh>"),
        ("<nploar:dog>", "<nplora:content:style>"),
        ("a <nplora:dog:vangogh:1, on a hill", "<nplora:dog:vangogh:1>"),
        ("a <nplora:dog\non a hill", "<nplora:content:style>"),
    ],
)
def test_what_is_meant_is_written_as_it_should_be(prompt, written):
    (problem,) = told(prompt)
    assert problem.endswith(f". Write {written}")


@pytest.mark.parametrize(
    "meant", ["< nplora:dog:vangogh:1>", "<nplora>", "<nplra:dog:vangogh>", "<np-lora:dog:b>", "<nplora:dog:vangogh"]
)
def test_what_is_meant_is_told_in_the_negative_prompt_as_in_the_prompt(meant):
    (problem,) = told(f"a cat {meant}")
    assert told("a cat", f"a bird {meant}") == [f"{problem} in the prompt: no tag is read in the negative one"]


def test_each_is_told_once():
    left, data = host_parsed("a < nplora:dog:vangogh>")
    p = SimpleNamespace(prompts=[left, left], hr_prompts=[left], negative_prompts=None)
    assert len(astray(p, data)) == 1


def test_roles_in_the_negative_prompt_are_told_and_ordinary_tags_are_not():
    roles = "<lora:dog:1:role=content> <lora:vangogh:1:role=style>"
    assert told("a cat", f"a bird {roles} <lora:hat:1>") == [
        f"NP-LoRA: {roles}: no tag is read in the negative prompt. Move it to the prompt"
    ]
