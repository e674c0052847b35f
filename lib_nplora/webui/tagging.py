"""Writes the panel's tag, varied by a plot, into the prompts of a picture before the host parses them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import RequestError
from ..request.request import FusionRequest
from . import axes, plot, running
from .compose import Composed, compose
from .fields import PanelState
from .infotext import BY_PANEL, MARK, ours
from .prompt_text import find
from .said import say

PROBLEM = "nplora_problem"
"""Attribute of `p`: why the panel or a plot adds nothing to this picture."""


def write(p: Any, args: Sequence[Any]) -> None:
    """Change `p.all_prompts` and, for hires fix, `p.all_hr_prompts`.

    To be called when the host has put styles into them. On an error nothing is changed, and the picture says why.

    args
        The script's, see PanelState.from_args.
    """
    # Of its own: cells of a plot and lines of a file share one with pictures that we may have had no part in.
    p.extra_generation_params = {
        k: v for k, v in p.extra_generation_params.items() if k not in {*ours(), "Lora hashes"}
    }
    setattr(p, PROBLEM, None)
    values = plot.of_cell(p)
    try:
        panel = PanelState.from_args(args).request() if PanelState.is_on(args) else None
        if panel is None and not values:
            return
        composed = _composed(p, panel, values)
    except RequestError as error:
        setattr(p, PROBLEM, f"NP-LoRA: {error}")
        say(p, str(error))
        return
    for name, several in composed.items():
        setattr(p, name, [one.prompt for one in several])
    p.main_prompt = p.all_prompts[0]
    everything = [one for several in composed.values() for one in several]
    for comment in dict.fromkeys(comment for one in everything for comment in one.comments):
        say(p, comment, logging.INFO)
    if panel and (unread := PanelState.unread(args)):
        say(p, f"{', '.join(unread)} has no effect with method={panel.method.name}", logging.INFO)
    if all(one.by_panel for one in everything):
        p.extra_generation_params[MARK] = BY_PANEL


def _composed(p: Any, panel: FusionRequest | None, values: Mapping[str, str]) -> dict[str, list[Composed]]:
    """Each list of prompts that `p` has. Raises RequestError."""
    lists = {name: prompts for name in ("all_prompts", "all_hr_prompts") if (prompts := getattr(p, name, None))}
    same_lora = running.same_lora()
    once = {
        prompt: compose(prompt, panel, values, same_lora)
        for prompt in dict.fromkeys(prompt for prompts in lists.values() for prompt in prompts)
    }
    if values and not any(find(one.prompt) for one in once.values()):
        varied = ", ".join(axes.PREFIX + name for name in values)
        raise RequestError(
            f"{varied}: there is no fusion to vary. Switch the panel on, or write <nplora:content:style>"
        )
    return {name: [once[prompt] for prompt in prompts] for name, prompts in lists.items()}
