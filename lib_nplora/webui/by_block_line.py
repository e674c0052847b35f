"""The panel's line for exceptions to a strength by block, with a chooser that writes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import gradio as gr

from ..layers.block import LABELS, Block
from . import running
from .parts import AT_ONCE, HIDDEN, SHORT, Parts

NUMBERED = {"in": range(12), "out": range(12), "double": range(19), "single": range(38), "te": range(1, 4)}
"""The numbers that the models have for which most LoRAs are."""

USUAL = [*map(Block, LABELS), *(Block(label, number) for label, numbers in NUMBERED.items() for number in numbers)]


KNOWN = "blocks_known"
SEPARATOR = " "


def names(line: str) -> list[str]:
    """The parts that `make` makes."""
    return [line, _chooser(line)]


def make(parts: Parts, line: str, what: str, example: str, **seen: Any) -> None:
    """The line and its chooser.

    what
        The strength that they are for, as the panel calls it.
    """
    parts.add(
        gr.Textbox,
        line,
        label=f"{what} by block",
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
        choices=choices(USUAL),
        value="",
        label="add a block",
        info="then edit its value",
        scale=1,
        min_width=110,
        **SHORT,
        **seen,
    )


def choices(blocks: Iterable[Block]) -> list[str]:
    """None, then what stands for several blocks, then the single ones. Others can be typed in the line."""
    found = list(blocks)
    labels = dict.fromkeys(block.label for block in found)
    return ["", *labels, *(str(block) for block in found if block.number is not None)]


def offered() -> list[str]:
    """The choices for the loaded model, or the usual ones."""
    return choices(running.blocks() or USUAL)


def join(parts: Parts, line: str, strength: Any, own: str) -> None:
    """Let the chooser write a block into the line, at the strength that all blocks have by now.

    own
        What counts while the strength is left empty.
    """
    text, chooser = (parts[name] for name in names(line))
    js = f"(block, line, strength) => nploraAddBlock(block, line, strength, {json.dumps(own)})"
    chooser.input(None, _js=js, inputs=[chooser, text, strength], outputs=[text, chooser])


def make_known(parts: Parts) -> None:
    """A hidden box that holds what the choosers list, as a text."""
    parts.add(gr.Textbox, KNOWN, value=SEPARATOR.join(choices(USUAL)), label=KNOWN, **HIDDEN)


def follow_model(parts: Parts, lines: Sequence[str]) -> None:
    """Let the choosers of all lines list the loaded model's blocks, once one of them is entered.

    They are not touched while they do so already: Gradio 4 empties a list that is typed in when its choices are set.
    """
    choosers = [parts[_chooser(line)] for line in lines]

    def follow(known: str) -> list[Any]:
        found = offered()
        text = SEPARATOR.join(found)
        changed = {} if text == known else {"choices": found}
        return [text, *(gr.update(**changed) for _ in choosers)]

    for chooser in choosers:
        chooser.focus(follow, inputs=[parts[KNOWN]], outputs=[parts[KNOWN], *choosers], **AT_ONCE)


def _chooser(line: str) -> str:
    return f"{line}_add"
