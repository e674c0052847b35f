"""The panel's line for exceptions to a strength by block, with a chooser that writes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ..layers.by_block import AT
from ..methods.texts import format_number

CHOICES = (
    "",
    *("in", "mid", "out", "double", "single", "te"),
    *(f"{label}{number}" for label, most in (("in", 12), ("out", 12)) for number in range(most)),
    *(f"{label}{number}" for label, most in (("double", 19), ("single", 38)) for number in range(most)),
    *("te1", "te2", "te3"),
)
"""The blocks of the models that most LoRAs are for. Others can be typed in the line."""


def names(line: str) -> list[str]:
    """The parts that `make` makes."""
    return [line, _chooser(line)]


def make(line: str, value: str, at: Callable[[str], dict[str, str]], **seen: Any) -> dict[str, Any]:
    """The line and its chooser, by name, inside whatever Gradio block is open.

    at
        Name -> the arguments that give a component its place.
    """
    text = gr.Textbox(
        value=value,
        label="by block",
        info="such as mid@2,out@hard" if line == "mu_by_block" else "such as in@0.6",
        max_lines=1,
        scale=2,
        min_width=160,
        **seen,
        **at(line),
    )
    chooser = gr.Dropdown(
        choices=list(CHOICES),
        value="",
        label="add a block",
        info="then change its value",
        scale=1,
        min_width=120,
        **seen,
        **at(_chooser(line)),
    )
    return dict(zip(names(line), (text, chooser)))


def join(parts: dict[str, Any], line: str, strength: Any) -> None:
    """Let the chooser write a block into the line, at the value that it has by now."""
    text, chooser = (parts[name] for name in names(line))
    chooser.input(_added, inputs=[chooser, text, strength], outputs=[text, chooser], queue=False, show_progress=False)


def _added(block: str, line: str, value: float) -> tuple[str, str]:
    pieces = [piece.strip() for piece in line.split(",") if piece.strip()]
    there = any(piece.partition(AT)[0].strip() == block for piece in pieces)
    if block and not there:
        pieces.append(f"{block}{AT}{format_number(float(value or 0))}")
    return ",".join(pieces), ""


def _chooser(line: str) -> str:
    return f"{line}_add"
