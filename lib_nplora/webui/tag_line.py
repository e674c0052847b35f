"""The panel's line that shows its tag, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ..errors import NploraError, RequestError
from ..findings.said import say
from ..request.request import FusionRequest
from ..request.tag import format_tag
from . import asking, running
from .fields import ROLES, PanelState
from .parts import Parts, row
from .words import of_language, refusal


def make(parts: Parts) -> None:
    """The line, and the button that puts the tag into the prompt."""
    with row():
        parts.add(
            gr.Textbox,
            "tag",
            value=lambda: shown(parts.values()),
            label="Tag",
            info="what the panel adds to the prompt",
            lines=2,  # Gradio fits a box to its text only while it is on show.
            interactive=False,
            scale=3,
            min_width=240,
        )
        parts.add(gr.Button, "insert", value="Insert into prompt", interactive=False, scale=1, min_width=200)
    asking.make(parts, "tag")


def join(parts: Parts) -> None:
    """Let the line follow every value, and the button put the tag into the prompt."""
    asking.join(parts, "tag", (component.change for component in parts.held.values()), shown)
    parts["tag"].change(None, _js="nploraInsertable", inputs=[parts["tag"]], outputs=[parts["insert"]])
    parts["insert"].click(None, _js=f"(tag) => nploraInsert('{parts.tab}', tag)", inputs=[parts["tag"]], outputs=[])


def request_of(args: Sequence[Any]) -> FusionRequest:
    """What the panel asks for, of LoRAs that are there. Raises RequestError, NotFoundError."""
    state = PanelState.from_args(args)
    if not (state["content"] or state["style"]):
        raise RequestError("choose a content LoRA and a style LoRA")
    if not state["content"]:
        raise RequestError("choose a content LoRA")
    if not state["style"]:
        raise RequestError("choose a style LoRA")
    for role in ROLES:
        running.check_listed(state[role])
    if running.same_lora()(*(state[role] for role in ROLES)):
        raise RequestError("content and style are the same LoRA")
    return state.request()


def shown(args: Sequence[Any]) -> str:
    """The tag that the panel stands for, or what it waits for."""
    try:
        return format_tag(request_of(args))
    except NploraError as error:
        words = of_language()
        return say("No tag yet: {reason}", reason=refusal(error, words)).told(words)
