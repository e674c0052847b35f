"""What is meant as a tag of ours, by the looks of it, and is none to the host."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import RequestError
from ..request.tag import parse_tag
from . import prompt_text
from .prompt import TAG, ExtraNetworkData, is_fusion, items_of, tag_text

_ATTEMPT = re.compile(r"<\s*(np[\s_-]*lora|[\w-]+)([^<>\n]*)(>?)")
"""What may be meant as a tag: (name, what follows it, its end)."""

_SHAPE = re.compile(r"<\w+:[^>]+>")
"""What a host takes for a tag, by whatever name, in the prompt."""

_NO_NAME = "there is no tag of this name"

_BETWEEN = " \t:;,.|/="
"""Signs that people put where a colon belongs."""

_NEAR = 0.82
"""Likeness of a name to ours from which on ours is meant. That of `lora` is 0.8."""


def astray(p: Any, data: ExtraNetworkData) -> list[str]:
    """What is wrong with each of them, and how it is written, for the picture that `p` is.

    p
        The host's, after it took the tags out of the prompts.
    data
        These tags.
    """
    prompts, negative = (
        [text for name in names for text in getattr(p, name, None) or ()]
        for names in (("prompts", "hr_prompts"), ("negative_prompts", "hr_negative_prompts"))
    )
    found = [*_misnamed(data), *_no_tags(prompts), *_in_negative(negative)]
    return [f"NP-LoRA: {problem}" for problem in dict.fromkeys(found)]


def _misnamed(data: ExtraNetworkData) -> Iterator[str]:
    """Tags to the host, which knows none of that name and takes them for nothing."""
    for name, several in data.items():
        if _is_near(name) and not is_fusion(name):
            for items in map(items_of, several):
                yield f"{tag_text(name, items)}: {_NO_NAME}. Write {_written(items)}"


def _no_tags(prompts: Iterable[str], where: str = "") -> Iterator[str]:
    """No tags to the host, which takes them for words.

    where
        Said behind how each is written.
    """
    for prompt in prompts:
        for match in filter(_is_meant, _ATTEMPT.finditer(prompt)):
            _, rest, end = match.groups()
            if end:
                wrong = _NO_NAME if _SHAPE.fullmatch(match[0]) else "this is no tag"
                yield f"{match[0]}: {wrong}. Write {_written(rest.lstrip(_BETWEEN).split(':'))}{where}"
            else:
                text = match[0].partition(",")[0].rstrip()
                items = rest.partition(",")[0].lstrip(_BETWEEN).split(":")
                yield f"{text}: it has no '>' at its end. Write {_written(items)}{where}"


def _in_negative(prompts: Iterable[str]) -> Iterator[str]:
    """Tags in the negative prompt, and what is meant as one, which the host takes for words there."""
    for prompt in prompts:
        for one in prompt_text.find(prompt):
            yield f"{one.asked.tag}: no tag is read in the negative prompt. Move it to the prompt"
        yield from _no_tags([prompt], " in the prompt: no tag is read in the negative one")


def _is_meant(match: re.Match[str]) -> bool:
    """Whether the match is meant as a tag of ours, and is none."""
    return _is_near(match[1]) and not prompt_text.find(match[0])


def _is_near(name: str) -> bool:
    folded = re.sub(r"[\s_-]", "", name).lower()
    return bool(difflib.get_close_matches(folded, [TAG], cutoff=_NEAR))


def _written(items: Iterable[str]) -> str:
    """The tag that these pieces make, or an example of one."""
    pieces = [item.strip() for item in items]
    try:
        parse_tag(pieces)
    except RequestError:
        pieces = ["content", "style"]
    return tag_text(TAG, pieces)
