"""Writes the panel's tag, varied by a plot, into the prompts of a picture before the host parses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import RequestError
from . import axes, running
from .compose import compose
from .fields import PanelState
from .infotext import BY_PANEL, MARK

PROBLEM = "nplora_problem"
"""Attribute of `p`: why the panel or a plot adds nothing to this picture."""


def write(p: Any, args: Sequence[Any]) -> None:
    """Change `p.all_prompts` and, for hires fix, `p.all_hr_prompts`.

    To be called when the host has put styles into them. On an error nothing is changed, and the picture says why.

    args
        The script's, see PanelState.from_args.
    """
    p.extra_generation_params.pop(MARK, None)
    setattr(p, PROBLEM, None)
    values = axes.of_cell(p)
    try:
        state = PanelState.from_args(args)
        panel = state.request() if state.enabled else None
        if panel is None and not values:
            return
        composed = {
            name: [compose(prompt, panel, values, running.same_lora) for prompt in prompts]
            for name in ("all_prompts", "all_hr_prompts")
            if (prompts := getattr(p, name, None))
        }
    except RequestError as error:
        setattr(p, PROBLEM, f"NP-LoRA: {error}")
        p.comment(f"NP-LoRA: {error}")
        return
    for name, several in composed.items():
        setattr(p, name, [one.prompt for one in several])
    p.main_prompt = p.all_prompts[0]
    everything = [one for several in composed.values() for one in several]
    for comment in dict.fromkeys(comment for one in everything for comment in one.comments):
        p.comment(f"NP-LoRA: {comment}")
    if any(one.by_panel for one in everything):
        p.extra_generation_params[MARK] = BY_PANEL
