"""A prompt, the panel and the axes of a plot become one prompt, which says it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..errors import RequestError
from ..request.request import FusionRequest, Source
from ..request.tag import format_tag
from . import axes, prompt_text
from .comments import visible
from .prompt_text import Standing


@dataclass(frozen=True)
class Composed:
    """A prompt that holds every tag that counts.

    by_panel
        Whether the last of them is the panel's.
    comments
        For the picture.
    """

    prompt: str
    by_panel: bool = False
    comments: tuple[str, ...] = ()


def compose(
    prompt: str,
    panel: FusionRequest | None,
    values: Mapping[str, str],
    same_lora: Callable[[str, str], bool],
) -> Composed:
    """Add the panel's tag, unless the prompt has its own for that pair, and put a plot's values where they belong.

    They vary the panel's fusion, or else the prompt's first; a plot of both names needs none to vary. Where there is
    none, the prompt stays as it is. Raises RequestError for values that cannot be put there.

    panel
        What the panel asks for; None if it is off.
    values
        Axis -> value, for one cell of a plot.
    same_lora
        Whether two names mean one LoRA.
    """
    found = prompt_text.find(prompt)
    pairs = [panel, axes.applied(panel, values)] if panel else []
    own = next((x for x in found if any(_same_pair(x, pair, same_lora) for pair in pairs)), None)
    if panel and own is None:
        told = axes.without_effect(pairs[1], values)
        return Composed(_added(prompt, pairs[1]), by_panel=True, comments=tuple(told))
    comments = []
    if panel and own and own.asked.request != panel:
        comments.append(f"the prompt's own tag for this pair is used, not the panel's: {own.asked.tag}")
    if values:
        prompt, told = _varied(prompt, own or next(iter(found), None), values)
        comments += told
    return Composed(prompt, comments=tuple(comments))


def _same_pair(standing: Standing, panel: FusionRequest, same_lora: Callable[[str, str], bool]) -> bool:
    request = standing.asked.request
    return not isinstance(request, RequestError) and all(
        any(same_lora(own.name, source.name) for own in side)
        for side, (source,) in ((request.contents, panel.contents), (request.styles, panel.styles))
    )


def _varied(prompt: str, standing: Standing | None, values: Mapping[str, str]) -> tuple[str, list[str]]:
    """The prompt with a plot's values, and what is to be said of them."""
    if standing is None:
        if not {"content", "style"} <= values.keys():
            return prompt, []
        pair = FusionRequest.of((Source(values["content"]),), (Source(values["style"]),))
        request = axes.applied(pair, values)
        return _added(prompt, request), axes.without_effect(request, values)
    if isinstance(standing.asked.request, RequestError):
        raise standing.asked.request
    request = axes.applied(standing.asked.request, values)
    told = [*standing.asked.remarks, *axes.without_effect(request, values)]
    return prompt_text.respelled(prompt, standing, request), told


def _added(prompt: str, request: FusionRequest) -> str:
    tag = format_tag(request)
    together = prompt_text.added(prompt, tag)
    if not visible(together).endswith(tag):
        raise RequestError(f"this WebUI takes a part of {tag} for a comment: rename the LoRA")
    return together
