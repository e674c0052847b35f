"""The panel's line for exceptions to a strength by block, with a chooser that writes it."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from ..layers.block import LABELS
from .parts import SHORT, Parts

NUMBERED = {"in": range(12), "out": range(12), "double": range(19), "single": range(38), "te": range(1, 4)}
"""The numbers that the models have for which most LoRAs are. Others can be typed in the line."""

CHOICES = ("", *LABELS, *(f"{label}{number}" for label, numbers in NUMBERED.items() for number in numbers))


def names(line: str) -> list[str]:
    """The parts that `make` makes."""
    return [line, _chooser(line)]


def make(parts: Parts, line: str, example: str, **seen: Any) -> None:
    """The line and its chooser."""
    parts.add(
        gr.Textbox,
        line,
        label="by block",
        info=f"such as {example}",
        max_lines=1,
        scale=2,
        min_width=140,
        **SHORT,
        **seen,
    )
    parts.add(
        gr.Dropdown,
        _chooser(line),
        choices=list(CHOICES),
        value="",
        label="add a block",
        info="then edit its value",
        scale=1,
        min_width=110,
        **SHORT,
        **seen,
    )


def join(parts: Parts, line: str, strength: Any, own: str) -> None:
    """Let the chooser write a block into the line, at the strength that all blocks have by now.

    own
        What counts while the strength is left empty.
    """
    text, chooser = (parts[name] for name in names(line))
    js = f"(block, line, strength) => nploraAddBlock(block, line, strength, {json.dumps(own)})"
    chooser.input(None, _js=js, inputs=[chooser, text, strength], outputs=[text, chooser])


def _chooser(line: str) -> str:
    return f"{line}_add"
