"""The panel: Gradio components that are alike in Gradio 3.41 and 4.40, as the hosts wrap them."""

from __future__ import annotations

from typing import Any

import gradio as gr
from modules.ui_common import create_refresh_button
from modules.ui_components import InputAccordion, ToolButton

from ..errors import NploraError, RequestError
from ..methods.method import Method
from ..methods.parameter import Choice, Parameter, Strength
from ..methods.table import method_named, methods, parameters, usual
from ..request.tag import format_tag
from . import by_block_line, running, workbench
from .fields import ROLES, PanelState, by_block, fields

Components = dict[str, Any]

AT_ONCE = {"queue": False, "show_progress": False}
"""For events that do not wait for a picture in progress."""

ROW = {"elem_classes": ["nplora-row"]}
HIDDEN = {"elem_classes": ["nplora-hidden"]}

NO_METHOD = "there is no such method"


def build(tab: str, start: PanelState) -> Components:
    """Make the panel of a tab, inside whatever Gradio block is open.

    Returns its components by the names of the panel's values, in their order.
    """
    parts = _Parts(tab, start).made()
    held = {name: parts[name] for name in fields()}
    _show_tag(held, parts["tag"])
    for parameter in parameters().values():
        if isinstance(parameter.widget, Strength):
            _join(parts[parameter.name], parts[parameter.widget.hard], parts[_position(parameter)])
        if parameter.by_block:
            by_block_line.join(parts, by_block(parameter.name), parts[parameter.name])
    for role in ROLES:
        by_block_line.join(parts, by_block(role), parts[f"{role}_weight"])
    _follow_method(parts)
    _take_roles(parts)
    parts["insert"].click(None, _js=f"(tag) => nploraInsert('{tab}', tag)", inputs=[parts["tag"]], outputs=[])
    swapped = [parts[name] for name in _of_both_roles()]
    parts["swap"].click(None, _js="(...v) => v.map((_, i) => v[i ^ 1])", inputs=swapped, outputs=swapped)
    # Their start is a setting of ours, or none: the host shall not keep the first one that it sees as its own default.
    kept = {"enabled", *_of_both_roles(), "te", "refresh", "swap", "insert", "role_set"}
    for name in parts.keys() - kept:
        parts[name].do_not_save_to_config = True
    return held


def _of_both_roles() -> list[str]:
    """The panel's values that the roles have, content and style in turn."""
    return [name for one in ("{}", "{}_weight", "{}_by_block") for name in (one.format(role) for role in ROLES)]


def _position(parameter: Parameter[Any]) -> str:
    """The slider of a strength."""
    return f"{parameter.name}_position"


class _Parts:
    """Makes the components, by their names."""

    def __init__(self, tab: str, start: PanelState) -> None:
        self._tab = tab
        self._start = start
        self._made: Components = {}

    def made(self) -> Components:
        with InputAccordion(self._start["enabled"], label="NP-LoRA", elem_id=f"{self._tab}_nplora") as enabled:
            self._made["enabled"] = enabled
            self._pair()
            strengths = [one for one in parameters().values() if isinstance(one.widget, Strength)]
            for parameter in strengths:
                self._strength(parameter)
            self._weights()
            with gr.Row(**ROW):
                self._boxes([one for one in usual().parameters if one not in strengths])
                self._add(
                    gr.Dropdown, "method", choices=list(methods()), label="Method", info="direct is the plain merge"
                )
                self._add(gr.Checkbox, "te", label="Text encoder too")
            with gr.Row(**ROW):
                about = method_named(self._start["method"]).about
                self._add(
                    gr.Textbox, "about", value=about, label="What the method does", interactive=False, min_width=480
                )
                self._boxes([one for one in parameters().values() if not usual().parameter(one.name)])
            with gr.Row(**ROW):
                self._tag()
            workbench.build(self._tab, {name: self._made[name] for name in fields()}, self._at)
            self._add(gr.Textbox, "role", value="", label="role", **HIDDEN)
            self._add(gr.Button, "role_set", value="Set role", **HIDDEN)
        return self._made

    def _at(self, name: str) -> dict[str, str]:
        return {"elem_id": f"{self._tab}_nplora_{name}"}

    def _add(self, component: Any, name: str, **settings: Any) -> None:
        """One of the panel's values starts as the panel's start has it."""
        if name in self._start.held:
            settings["value"] = self._start[name]
        self._made[name] = component(**settings, **self._at(name))

    def _pair(self) -> None:
        with gr.Row(**ROW):
            for role, info in (("content", "the subject"), ("style", "the look")):
                label = f"{role.capitalize()} LoRA"
                self._add(gr.Dropdown, role, choices=_choices(), label=label, info=info, allow_custom_value=True)
            lists = [self._made[role] for role in ROLES]
            create_refresh_button(lists, running.refresh, lambda: {"choices": _choices()}, **self._at("refresh"))
            self._made["swap"] = ToolButton("\u21c4", tooltip="Swap roles", **self._at("swap"))

    def _strength(self, parameter: Parameter[Any]) -> None:
        widget = parameter.widget
        assert isinstance(widget, Strength)
        label, value, is_hard = parameter.label or parameter.name, self._start[parameter.name], self._start[widget.hard]
        seen = {"visible": self._is_read(parameter)}
        editable = {"interactive": not is_hard, **seen}
        with gr.Row(**ROW):
            self._add(
                gr.Slider,
                _position(parameter),
                minimum=0,
                maximum=1,
                value=min(value / widget.most, 1) ** (1 / 3),
                step=0.001,
                label=label,
                info=parameter.words,
                scale=3,
                min_width=240,
                **editable,
            )
            self._add(
                gr.Number,
                parameter.name,
                label=f"{label} value",
                info=f"{widget.most:g} is close to hard",
                step=0.1,
                scale=1,
                min_width=100,
                **editable,
            )
            self._add(gr.Checkbox, widget.hard, label="hard: fully protected", scale=1, min_width=100, **seen)
            if parameter.by_block:
                self._by_block(parameter.name, **seen)

    def _weights(self) -> None:
        for role in ROLES:
            with gr.Row(**ROW):
                self._add(
                    gr.Slider,
                    f"{role}_weight",
                    minimum=0,
                    maximum=2,
                    step=0.05,
                    label=f"{role.capitalize()} weight",
                    info="1 is the LoRA as it is",
                    scale=3,
                    min_width=240,
                )
                self._by_block(role)

    def _by_block(self, name: str, **seen: Any) -> None:
        self._made |= by_block_line.make(by_block(name), self._start[by_block(name)], self._at, **seen)

    def _boxes(self, shown: list[Parameter[Any]]) -> None:
        """A box for each of these parameters."""
        method = method_named(self._start["method"])
        for parameter in shown:
            common = {
                "label": parameter.label or parameter.name,
                "info": parameter.words,
                "visible": self._is_read(parameter),
                "min_width": 120,
            }
            widget = parameter.widget
            if isinstance(widget, Choice):
                own = () if widget.free else ("",)
                options = list(dict.fromkeys((*own, *widget.options, *filter(None, [self._start[parameter.name]]))))
                self._add(gr.Dropdown, parameter.name, choices=options, allow_custom_value=widget.free, **common)
            else:
                self._add(gr.Textbox, parameter.name, max_lines=1, **common, **_own(method, parameter))
            if parameter.by_block:
                self._by_block(parameter.name, visible=common["visible"])

    def _is_read(self, parameter: Parameter[Any]) -> bool:
        return method_named(self._start["method"]).parameter(parameter.name) is not None

    def _tag(self) -> None:
        self._add(
            gr.Textbox,
            "tag",
            value=lambda: _tag(PanelState.from_args([self._made[name].value for name in fields()])),
            label="Tag",
            info="what the panel adds to the prompt",
            interactive=False,
            scale=3,
            min_width=240,
        )
        self._add(gr.Button, "insert", value="Insert into prompt", scale=1, min_width=160)


def _own(method: Method, parameter: Parameter[Any]) -> dict[str, str]:
    """What the method takes for a parameter that is left empty, as a box shows it; a dropdown cannot."""
    if isinstance(parameter.widget, Choice):
        return {}
    own = method.parameter(parameter.name) or parameter
    return {"placeholder": own.write(own.default)}


def _choices() -> list[str]:
    """None, which Gradio 4 shows as whatever stands first, then every LoRA."""
    return ["", *running.names()]


def _tag(state: PanelState) -> str:
    """The tag that the panel stands for, or why there is none."""
    try:
        for name in filter(None, (state["content"], state["style"])):
            running.check_listed(name)
        if state["content"] and state["content"] == state["style"]:
            raise RequestError("content and style are the same LoRA")
        return format_tag(state.request())
    except NploraError as error:
        return f"No tag yet: {error}"


def _show_tag(held: Components, tag: Any) -> None:
    async def show(*args: Any) -> str:
        """Not in a thread of its own, where an answer to what was typed before could come last."""
        try:
            return _tag(PanelState.from_args(args))
        except RequestError as error:
            return f"No tag yet: {error}"

    # Gradio 3 drops a change that comes while the one before is answered: leaving a box that was typed in asks again.
    typed = [name for name, default in fields().items() if isinstance(default, str)]
    numbers = [one.name for one in parameters().values() if isinstance(one.widget, Strength)]
    for event in (
        *(component.change for component in held.values()),
        *(held[name].input for name in numbers),
        *(held[name].blur for name in typed),
    ):
        event(show, inputs=list(held.values()), outputs=[tag], **AT_ONCE)


def _join(number: Any, hard: Any, position: Any) -> None:
    """The slider is finer near 0 than the number it stands for."""
    position.input(None, _js="(position) => nploraMu(position)", inputs=[position], outputs=[number])
    stay = "(mu, position) => nploraMu(position) === mu ? position : nploraPosition(mu)"
    number.change(None, _js=stay, inputs=[number, position], outputs=[position])
    both = [number, position]
    hard.change(lambda hard: [gr.update(interactive=not hard)] * 2, inputs=[hard], outputs=both, **AT_ONCE)


def _components_of(parameter: Parameter[Any]) -> list[str]:
    """The parts of the panel that stand for a parameter, those with a placeholder first."""
    exceptions = by_block_line.names(by_block(parameter.name)) if parameter.by_block else []
    if isinstance(parameter.widget, Strength):
        return [parameter.name, _position(parameter), parameter.widget.hard, *exceptions]
    return [parameter.name, *exceptions]


def _follow_method(parts: Components) -> None:
    """Say what the chosen method does, and offer what it reads, with its own values where nothing is typed."""

    async def follow(name: str) -> list[Any]:
        method = methods().get(name)
        updates = [gr.update(value=method.about if method else NO_METHOD)]
        for parameter in parameters().values():
            own = method.parameter(parameter.name) if method else None
            placeholder = _own(method, own) if method and own and not isinstance(own.widget, Strength) else {}
            shown = {"visible": own is not None}
            _, *others = _components_of(parameter)
            updates += [gr.update(**shown, **placeholder), *(gr.update(**shown) for _ in others)]
        return updates

    outputs = [parts["about"], *(parts[name] for one in parameters().values() for name in _components_of(one))]
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
