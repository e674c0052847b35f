"""The panel's parts that stand for the methods' parameters: shown while the chosen method reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gradio as gr

from ..methods.method import Method
from ..methods.parameter import Choice, Parameter, Strength
from ..methods.table import method_named, methods, parameters, usual
from . import by_block_line, strength
from .fields import by_block
from .parts import AT_ONCE, SHORT, Parts, row, sentence

NO_METHOD = "there is no such method"


def make_method(parts: Parts) -> None:
    """The choice of the method, what it does, and below that a row of what only some methods read."""
    with row():
        parts.add(gr.Dropdown, "method", choices=list(methods()), label="Method", info="direct is the plain merge")
    parts.add(gr.HTML, "about", value=sentence(method_named(parts.start["method"]).about))
    with row():
        _make_boxes(parts, (one for one in _typed() if not usual().parameter(one.name)))


def make_strengths(parts: Parts) -> None:
    """A row for each strength, above what to try first."""
    for parameter, widget in strength.strengths().items():
        with row():
            strength.make(parts, parameter, widget)
        parts.add(
            gr.HTML,
            _recipe(parameter),
            value=sentence(widget.recipe),
            visible=_takes_recipe(method_named(parts.start["method"]), parameter),
        )


def make_more(parts: Parts) -> None:
    """What is seldom touched of the usual method's, and the lines for exceptions by block."""
    with row():
        _make_boxes(parts, (one for one in _typed() if usual().parameter(one.name)))
        parts.add(gr.Checkbox, "te", label="Text encoder too", min_width=130, **SHORT)
    for parameter in parameters().values():
        if parameter.by_block:
            with row():
                _make_line(parts, parameter)


def _typed() -> list[Parameter[Any]]:
    """The parameters that are no strengths."""
    return [one for one in parameters().values() if one not in strength.strengths()]


def _make_boxes(parts: Parts, shown: Iterable[Parameter[Any]]) -> None:
    method = method_named(parts.start["method"])
    for parameter in shown:
        common = {
            "label": parameter.label or parameter.name,
            "info": parameter.words,
            "visible": parts.reads(parameter),
            "min_width": 120,
            **SHORT,
        }
        widget = parameter.widget
        if isinstance(widget, Choice):
            none = () if widget.free else ("",)
            options = dict.fromkeys((*none, *widget.options, *filter(None, [parts.start[parameter.name]])))
            parts.add(gr.Dropdown, parameter.name, choices=list(options), allow_custom_value=widget.free, **common)
        else:
            parts.add(gr.Textbox, parameter.name, max_lines=1, **common, **_placeholder(method, parameter))


def _make_line(parts: Parts, parameter: Parameter[Any]) -> None:
    """The line for its exceptions by block."""
    widget, own = parameter.widget, parameter.write(parameter.default)
    example = f"mid@{widget.most / 5:g},out@hard" if isinstance(widget, Strength) else f"mid@{own}"
    what = parameter.label or parameter.name
    by_block_line.make(parts, by_block(parameter.name), what, example, visible=parts.reads(parameter))


def _placeholder(method: Method, parameter: Parameter[Any]) -> dict[str, str]:
    """What the method takes for a box that is left empty, as the box shows it."""
    own = method.parameter(parameter.name) or parameter
    return {"placeholder": own.write(own.default)}


def join(parts: Parts) -> None:
    """Let the parts follow each other."""
    for parameter, widget in strength.strengths().items():
        strength.join(parts, parameter, widget)
    for parameter in parameters().values():
        if parameter.by_block:
            own = parameter.write(parameter.default)
            by_block_line.join(parts, by_block(parameter.name), parts[parameter.name], own)
    _follow_method(parts)


def _names(parameter: Parameter[Any]) -> list[str]:
    """The parts that stand for a parameter, its value first."""
    widget = parameter.widget
    value = [parameter.name]
    if isinstance(widget, Strength):
        value = [*strength.names(parameter, widget), *([_recipe(parameter)] if widget.recipe else [])]
    return [*value, *(by_block_line.names(by_block(parameter.name)) if parameter.by_block else ())]


def _recipe(parameter: Parameter[Any]) -> str:
    return f"{parameter.name}_recipe"


def _takes_recipe(method: Method, parameter: Parameter[Any]) -> bool:
    """Whether what to try first holds: where a method protects the content instead, more makes the style weaker."""
    widget = parameter.widget
    read = method.parameter(parameter.name) is not None
    return isinstance(widget, Strength) and bool(widget.recipe) and read and method.projects_by is not None


def _follow_method(parts: Parts) -> None:
    """Say what the chosen method does, and offer what it reads, with its own values where nothing is typed."""

    async def follow(name: str) -> list[Any]:
        method = methods().get(name)
        updates = [gr.update(value=sentence(method.about if method else NO_METHOD))]
        for parameter in parameters().values():
            seen = {"visible": bool(method and method.parameter(parameter.name))}
            recipe = {"visible": bool(method and _takes_recipe(method, parameter))}
            typed = method is not None and not isinstance(parameter.widget, (Choice, Strength))
            updates.append(gr.update(**seen, **(_placeholder(method, parameter) if method and typed else {})))
            for name in _names(parameter)[1:]:
                updates.append(gr.update(**(recipe if name == _recipe(parameter) else seen)))
        return updates

    outputs = [parts["about"], *(parts[name] for one in parameters().values() for name in _names(one))]
    for event in (parts["method"].change, parts["method"].blur):
        event(follow, inputs=[parts["method"]], outputs=outputs, **AT_ONCE)
