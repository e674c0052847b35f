"""The panel's parts for the two LoRAs, each with its weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
from modules.ui_common import create_refresh_button
from modules.ui_components import ToolButton

from ..findings.said import translated
from . import by_block_line, running
from .fields import ROLES, by_block
from .parts import AT_ONCE, HIDDEN, Parts, row
from .words import of_language

INFO = {"content": "the subject", "style": "the look"}
RESTORED = "restored"


def make_names(parts: Parts) -> None:
    """Two lists of LoRAs, a button that looks for new ones, a button that swaps the roles."""
    with row():
        for role in ROLES:
            label = f"{role.capitalize()} LoRA"
            parts.add(gr.Dropdown, role, choices=_choices(), label=label, info=INFO[role], allow_custom_value=True)
        lists = [parts[role] for role in ROLES]
        # At each load of the page Gradio asks for it: a host may have started the lists with LoRAs of its own file.
        parts.add(gr.Textbox, RESTORED, value=lambda: _restored(parts), label=RESTORED, **HIDDEN)
        parts.made["refresh"] = create_refresh_button(
            lists, running.refresh, lambda: {"choices": _choices()}, **parts.at("refresh")
        )
        parts.made["swap"] = ToolButton("\u21c4", tooltip="Swap roles", **parts.at("swap"))


def make_weights(parts: Parts) -> None:
    """The weights, side by side."""
    with row():
        for role in ROLES:
            parts.add(
                gr.Slider,
                _weight(role),
                minimum=0,
                maximum=2,
                step=0.05,
                label=_label(role),
                info="1 is the LoRA as it is",
                min_width=200,
            )


def make_lines(parts: Parts) -> None:
    """A row for the exceptions to each weight."""
    for role in ROLES:
        with row():
            by_block_line.make(parts, by_block(role), _label(role), "in@0.6")


def make_taken(parts: Parts) -> None:
    """A hidden box and button, by which the menu on a LoRA's card gives it a role."""
    parts.add(gr.Textbox, "role", value="", label="role", **HIDDEN)
    parts.add(gr.Button, "role_set", value="Set role", **HIDDEN)


def join(parts: Parts) -> None:
    """Let the parts follow each other."""
    lists = [parts[role] for role in ROLES]
    for event in (parts[RESTORED].change, parts["tag"].change):  # Gradio 3 drops changes of a list while it waits.
        event(_tell_places, inputs=lists, outputs=lists, **AT_ONCE)
    for role in ROLES:
        for event in (parts[role].change, parts[role].blur):
            event(_tell_place(INFO[role]), inputs=[parts[role]], outputs=[parts[role]], **AT_ONCE)
        by_block_line.join(parts, by_block(role), parts[_weight(role)], "1")
    swapped = [parts[name] for name in of_both_roles()]
    # Gradio hands the outputs' values over after the inputs'.
    js = f"(...values) => values.slice(0, {len(swapped)}).map((_, i) => values[i ^ 1])"
    parts["swap"].click(None, _js=js, inputs=swapped, outputs=swapped)
    parts["role_set"].click(
        _take_role,
        inputs=[parts["role"], parts["content"], parts["style"]],
        outputs=[parts["enabled"], parts["content"], parts["style"]],
        **AT_ONCE,
    )


def of_both_roles() -> list[str]:
    """The panel's values that the roles have, content and style in turn."""
    return [name for named in (str, _weight, by_block) for name in map(named, ROLES)]


def _weight(role: str) -> str:
    return f"{role}_weight"


def _label(role: str) -> str:
    return f"{role.capitalize()} weight"


def _choices() -> list[str]:
    """None, which Gradio 4 shows as whatever stands first, then every LoRA."""
    return ["", *running.names()]


def _tell_place(usual: str) -> Callable[[str], Any]:
    """A function that has a list say where the chosen file lies, if others have its name, too."""

    async def tell(name: str) -> Any:
        return gr.update(info=running.folder_of(name) or translated(usual, of_language()))

    return tell


async def _tell_places(*names: str) -> list[Any]:
    """The same for all lists at once."""
    return [await _tell_place(INFO[role])(name) for role, name in zip(ROLES, names)]


def _restored(parts: Parts) -> str:
    """What the lists start with, in one text that is empty for nothing."""
    return "".join(parts[role].value or "" for role in ROLES)


def _take_role(asked: str, content: str, style: str) -> tuple[Any, str, str]:
    """Give a LoRA its role, `content:NAME`, swapped if it had the other. A whole pair switches the panel on."""
    role, _, name = asked.partition(":")
    if role == "content":
        content, style = name, content if style == name else style
    else:
        content, style = style if content == name else content, name
    return gr.update(value=True) if content and style else gr.update(), content, style
