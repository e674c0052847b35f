"""The panel's line that shows its tag, or why there is none."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..errors import NploraError, RequestError
from ..request.tag import format_tag
from . import running, strength
from .fields import ROLES, PanelState, fields
from .parts import AT_ONCE, Parts, row


def make(parts: Parts) -> None:
    """The line, and the button that puts the tag into the prompt."""
    with row():
        parts.add(
            gr.Textbox,
            "tag",
            value=lambda: shown([component.value for component in parts.held.values()]),
            label="Tag",
            info="what the panel adds to the prompt",
            interactive=False,
            scale=3,
            min_width=240,
        )
        parts.add(gr.Button, "insert", value="Insert into prompt", scale=1, min_width=200)


def join(parts: Parts) -> None:
    """Let the line follow every value, and the button put the tag into the prompt."""

    async def show(*args: Any) -> str:
        """Not in a thread of its own, where an answer to what was typed before could come last."""
        return shown(args)

    # Gradio 3 drops a change that comes while the one before is answered: leaving a box that was typed in asks again.
    # And where two are answered at once, the older answer may come last: whoever was answered asks once more.
    typed = [name for name, default in fields().items() if isinstance(default, str)]
    for event in (
        *(component.change for component in parts.held.values()),
        *(parts[one.name].input for one in strength.strengths()),
        *(parts[name].blur for name in typed),
    ):
        asked = {"fn": show, "inputs": list(parts.held.values()), "outputs": [parts["tag"]], **AT_ONCE}
        event(**asked).then(**asked)
    parts["insert"].click(None, _js=f"(tag) => nploraInsert('{parts.tab}', tag)", inputs=[parts["tag"]], outputs=[])


def shown(args: Any) -> str:
    """The tag that the panel stands for, or why there is none."""
    try:
        state = PanelState.from_args(args)
        for name in (state[role] for role in ROLES if state[role]):
            running.check_listed(name)
        if state["content"] and state["content"] == state["style"]:
            raise RequestError("content and style are the same LoRA")
        return format_tag(state.request())
    except NploraError as error:
        return f"No tag yet: {error}"
