"""A strength on the panel: a slider that is finer near 0, its number, and a box for `hard`."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..methods.parameter import Parameter, Strength
from ..methods.table import parameters
from .parts import AT_ONCE, SHORT, Parts


def strengths() -> dict[Parameter[Any], Strength]:
    """Every parameter of any method that is shown so, with its widget."""
    return {one: one.widget for one in parameters().values() if isinstance(one.widget, Strength)}


def names(parameter: Parameter[Any], widget: Strength) -> list[str]:
    """The parts that `make` makes."""
    return [parameter.name, _position(parameter), widget.hard]


def make(parts: Parts, parameter: Parameter[Any], widget: Strength) -> None:
    """Slider, number and box."""
    label, value = parameter.label or parameter.name, parts.start[parameter.name]
    seen = {"visible": parts.reads(parameter)}
    editable = {"interactive": not parts.start[widget.hard], **seen}
    parts.add(
        gr.Slider,
        _position(parameter),
        minimum=0,
        maximum=1,
        value=min(value / widget.most, 1) ** (1 / 3),
        step=0.001,
        label=label,
        info=parameter.words,
        scale=3,
        min_width=200,
        elem_classes=["nplora-position"],
        **editable,
    )
    parts.add(
        gr.Number,
        parameter.name,
        label=f"{label} value",
        info=f"{widget.most:g} is close to hard",
        step=0.1,
        scale=1,
        min_width=110,
        **SHORT,
        **editable,
    )
    parts.add(gr.Checkbox, widget.hard, label="hard: fully protected", scale=1, min_width=155, **SHORT, **seen)


def join(parts: Parts, parameter: Parameter[Any], widget: Strength) -> None:
    """Let slider and number follow each other, and be locked while the box is ticked."""
    position, number, hard = parts[_position(parameter)], parts[parameter.name], parts[widget.hard]
    most = f"{widget.most:g}"
    position.input(None, _js=f"(position) => nploraStrength(position, {most})", inputs=[position], outputs=[number])
    follow = f"(value, position) => nploraFollow(value, position, {most})"
    number.change(None, _js=follow, inputs=[number, position], outputs=[position])
    both = [number, position]
    hard.change(lambda hard: [gr.update(interactive=not hard)] * 2, inputs=[hard], outputs=both, **AT_ONCE)


def _position(parameter: Parameter[Any]) -> str:
    return f"{parameter.name}_position"
