"""The panel: Gradio components that are alike in Gradio 3.41 and 4.40, as the hosts wrap them."""

from __future__ import annotations

from typing import Any

import gradio as gr
from modules.ui_common import create_refresh_button
from modules.ui_components import InputAccordion, ToolButton

from ..errors import NploraError, RequestError
from ..methods.selection import SCOPES
from ..methods.table import METHODS, OPTIONS, Method
from ..request.request import format_number, format_tag
from . import running, workbench
from .fields import NAMES, PanelState

Components = dict[str, Any]

AT_ONCE = {"queue": False, "show_progress": False}
"""For events that do not wait for a picture in progress."""


def build(tab: str, start: PanelState) -> Components:
    """Make the panel of a tab, inside whatever Gradio block is open.

    Returns its components by the names of PanelState's fields, in their order.
    """
    parts = _components(tab, start)
    fields = {name: parts[name] for name in NAMES}
    _show_tag(fields, parts["tag"])
    _join_mu(parts["mu"], parts["hard"], parts["mu_position"])
    _follow_method(parts)
    _take_roles(parts)
    parts["insert"].click(None, _js=f"(tag) => nploraInsert('{tab}', tag)", inputs=[parts["tag"]], outputs=[])
    swapped = [parts[name] for name in ("content", "style", "content_weight", "style_weight")]
    parts["swap"].click(None, _js="(c, s, cw, sw) => [s, c, sw, cw]", inputs=swapped, outputs=swapped)
    # Their start is a setting of ours, or none: the host shall not keep the first one that it sees as its own default.
    for name in ("mu", "hard", "k", "method", *OPTIONS, "about", "mu_position", "tag", "role"):
        parts[name].do_not_save_to_config = True
    return fields


def _components(tab: str, start: PanelState) -> Components:
    def at(name: str) -> dict[str, str]:
        return {"elem_id": f"{tab}_nplora_{name}"}

    row = {"elem_classes": ["nplora-row"]}
    hidden = {"elem_classes": ["nplora-hidden"]}
    parts: Components = {}
    with InputAccordion(start.enabled, label="NP-LoRA", elem_id=f"{tab}_nplora") as parts["enabled"]:
        with gr.Row(**row):
            for role, info in (("content", "the subject"), ("style", "the look")):
                parts[role] = gr.Dropdown(
                    _choices(),
                    value=getattr(start, role),
                    label=f"{role.capitalize()} LoRA",
                    info=info,
                    allow_custom_value=True,
                    **at(role),
                )
            create_refresh_button(
                [parts["content"], parts["style"]],
                running.refresh,
                lambda: {"choices": _choices()},
                **at("refresh"),
            )
            parts["swap"] = ToolButton("\u21c4", tooltip="Swap roles", **at("swap"))
        with gr.Row(**row):
            parts["mu_position"] = gr.Slider(
                0,
                1,
                value=min(start.mu / 10, 1) ** (1 / 3),
                step=0.001,
                label="mu",
                info="how strongly the style is protected; 0 is the plain merge",
                interactive=not start.hard,
                scale=3,
                min_width=240,
                **at("mu_position"),
            )
            parts["mu"] = gr.Number(
                start.mu,
                label="mu value",
                info="10 is close to hard",
                step=0.1,
                interactive=not start.hard,
                scale=1,
                min_width=100,
                **at("mu"),
            )
            parts["hard"] = gr.Checkbox(start.hard, label="hard: fully protected", scale=1, min_width=100, **at("hard"))
        with gr.Row(**row):
            for role in ("content", "style"):
                name = f"{role}_weight"
                parts[name] = gr.Slider(
                    0,
                    2,
                    value=getattr(start, name),
                    step=0.05,
                    label=f"{role.capitalize()} weight",
                    info="1 is the LoRA as it is",
                    **at(name),
                )
        with gr.Row(**row):
            parts["k"] = gr.Dropdown(
                list(dict.fromkeys(("all", "8", "16", "32", "90%", "99%", start.k))),
                value=start.k,
                label="Directions (k)",
                info="how many of the style's are protected",
                allow_custom_value=True,
                **at("k"),
            )
            parts["method"] = gr.Dropdown(
                list(METHODS), value=start.method, label="Method", info="direct is the plain merge", **at("method")
            )
            parts["te"] = gr.Checkbox(start.te, label="Text encoder too", **at("te"))
        with gr.Row(**row):
            method = METHODS[start.method]
            parts["about"] = gr.Textbox(
                method.about, label="What the method does", interactive=False, min_width=480, **at("about")
            )
            for name in OPTIONS:
                common = {
                    "value": getattr(start, name),
                    "label": name,
                    "info": _INFO[name],
                    "visible": name in method.reads,
                    "min_width": 120,
                    **at(name),
                }
                if name == "scope":
                    parts[name] = gr.Dropdown(["", *SCOPES], **common)
                else:
                    parts[name] = gr.Textbox(max_lines=1, **common, **_own(method, name))
        with gr.Row(**row):
            parts["tag"] = gr.Textbox(
                lambda: _tag(PanelState.from_args([parts[name].value for name in NAMES])),
                label="Tag",
                info="what the panel adds to the prompt",
                interactive=False,
                scale=3,
                min_width=240,
                **at("tag"),
            )
            parts["insert"] = gr.Button("Insert into prompt", scale=1, min_width=160, **at("insert"))
        workbench.build(tab, {name: parts[name] for name in NAMES}, at)
        parts["role"] = gr.Textbox("", label="role", **hidden, **at("role"))
        parts["role_set"] = gr.Button("Set role", **hidden, **at("role_set"))
    return parts


_INFO = {
    "alpha": "how much the style gains",
    "beta": "how strong it starts",
    "scope": "empty: the method's own",
    "density": "share that is kept: 0.2, 20%",
    "seed": "picks what is dropped",
}
"""What each of OPTIONS means, for the user."""


def _own(method: Method, option: str) -> dict[str, str]:
    """What the method takes for an option that is left empty, as a box shows it; a dropdown cannot."""
    return {} if option == "scope" else {"placeholder": format_number(getattr(method.defaults, option))}


def _choices() -> list[str]:
    """None, which Gradio 4 shows as whatever stands first, then every LoRA."""
    return ["", *running.names()]


def _tag(state: PanelState) -> str:
    """The tag that the panel stands for, or why there is none."""
    try:
        for name in filter(None, (state.content, state.style)):
            running.check_listed(name)
        if state.content and state.content == state.style:
            raise RequestError("content and style are the same LoRA")
        return format_tag(state.request())
    except NploraError as error:
        return f"No tag yet: {error}"


def _show_tag(fields: Components, tag: Any) -> None:
    async def show(*args: Any) -> str:
        """Not in a thread of its own, where an answer to what was typed before could come last."""
        try:
            return _tag(PanelState.from_args(args))
        except RequestError as error:
            return f"No tag yet: {error}"

    # Gradio 3 drops a change that comes while the one before is answered: leaving a box that was typed in asks again.
    left = (fields[name].blur for name in ("content", "style", "k", "method", *OPTIONS))
    for event in (*(component.change for component in fields.values()), fields["mu"].input, *left):
        event(show, inputs=list(fields.values()), outputs=[tag], **AT_ONCE)


def _join_mu(mu: Any, hard: Any, position: Any) -> None:
    """The slider is finer near 0 than the number it stands for."""
    position.input(None, _js="(position) => nploraMu(position)", inputs=[position], outputs=[mu])
    stay = "(mu, position) => nploraMu(position) === mu ? position : nploraPosition(mu)"
    mu.change(None, _js=stay, inputs=[mu, position], outputs=[position])
    hard.change(lambda hard: [gr.update(interactive=not hard)] * 2, inputs=[hard], outputs=[mu, position], **AT_ONCE)


def _follow_method(parts: Components) -> None:
    """Say what the chosen method does, and offer what it reads, with its own values where nothing is typed."""

    async def follow(name: str) -> list[Any]:
        method = METHODS.get(name, Method("there is no such method"))
        boxes = [gr.update(visible=option in method.reads, **_own(method, option)) for option in OPTIONS]
        return [gr.update(value=method.about), *boxes]

    outputs = [parts[name] for name in ("about", *OPTIONS)]
    for event in (parts["method"].change, parts["method"].blur):
        event(follow, inputs=[parts["method"]], outputs=outputs, **AT_ONCE)


def _take_roles(parts: Components) -> None:
    """What the menu on a LoRA's card does, by way of a hidden box and button."""
    parts["role_set"].click(
        _take_role,
        inputs=[parts["role"], parts["content"], parts["style"]],
        outputs=[parts["enabled"], parts["content"], parts["style"]],
        **AT_ONCE,
    )


def _take_role(asked: str, content: str, style: str) -> tuple[Any, str, str]:
    """Give a LoRA its role, `content:NAME`, swapped if it had the other. A whole pair switches the panel on."""
    role, _, name = asked.partition(":")
    if role == "content":
        content, style = name, content if style == name else style
    else:
        content, style = style if content == name else content, name
    return gr.update(value=True) if content and style else gr.update(), content, style
