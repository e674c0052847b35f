"""Fusions in the text of a prompt: found, spelled anew, added, taken out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..jobs.session import Asked
from ..request.request import FusionRequest
from ..request.roles import format_roles
from ..request.tag import format_tag
from .comments import visible
from .prompt import asked_by_roles, asked_by_tag, gives_role, is_fusion

_ANY_TAG = re.compile(r"<(\w+):([^>]+)>")
"""A tag, as the hosts read it."""


@dataclass(frozen=True)
class Standing:
    """A fusion where it stands.

    spans
        (start, stop) of its tags in the prompt, in order.
    """

    asked: Asked
    spans: tuple[tuple[int, int], ...]


def find(prompt: str) -> list[Standing]:
    """Every fusion of a prompt: one for each `<nplora:...>`, in order, and one for all roles together.

    Tags in comments do not count.
    """
    found = []
    roles = []
    for match in _ANY_TAG.finditer(visible(prompt)):
        name, items = match[1], match[2].split(":")
        if is_fusion(name):
            found.append(Standing(asked_by_tag(name, items), (match.span(),)))
        elif gives_role(name, items):
            roles.append((match.span(), (name, items)))
    if roles:
        found.append(Standing(asked_by_roles([tag for _, tag in roles]), tuple(span for span, _ in roles)))
    return found


def respelled(prompt: str, standing: Standing, request: FusionRequest) -> str:
    """The prompt with `request` in the place of a fusion that stands in it, in the same spelling."""
    text = format_roles(request) if standing.asked.by_role else format_tag(request)
    first, *rest = standing.spans
    for span in reversed(rest):
        prompt = _cut(prompt, span)
    return prompt[: first[0]] + text + prompt[first[1] :]


def without(prompt: str, standing: Standing) -> str:
    """The prompt as it was before that fusion was added."""
    for span in reversed(standing.spans):
        prompt = _cut(prompt, span)
    return prompt


def added(prompt: str, tag: str) -> str:
    """The prompt with a tag at its end, on a line of its own if a comment would swallow it."""
    if not prompt:
        return tag
    together = f"{prompt} {tag}"
    return together if visible(together).endswith(tag) else f"{prompt}\n{tag}"


def renamed(prompt: str, rename: Callable[[str], str]) -> str:
    """The prompt with other names for the LoRAs of its fusions."""

    def change(match: re.Match[str]) -> str:
        name, items = match[1], match[2].split(":")
        sources = 2 if is_fusion(name) else int(gives_role(name, items))
        items[:sources] = [rename(item.strip()) for item in items[:sources]]
        return f"<{':'.join([name, *items])}>" if sources else match[0]

    return _ANY_TAG.sub(change, prompt)


def _cut(prompt: str, span: tuple[int, int]) -> str:
    start, stop = span
    if start and prompt[start - 1] in " \n":
        start -= 1
    return prompt[:start] + prompt[stop:]
