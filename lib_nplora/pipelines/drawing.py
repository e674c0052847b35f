"""The pictures of a pipeline, in rows on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..errors import HostError

if TYPE_CHECKING:
    from PIL.Image import Image

LEAST = 192
"""Pixels that a picture is wide at least: smaller ones are shown a whole number of times as large."""

GAP, LINE, SIZE = 8, 22, 15
"""Pixels between pictures, of a line of text, and of its letters."""


@dataclass(frozen=True, eq=False)
class Cell:
    """A picture with its caption, of at most as many letters as it has room for."""

    caption: str
    picture: Image


def draw(pipe: Any, prompt: str, seed: int, steps: int | None = None) -> Image:
    """One picture, from the same noise on every device. Raises HostError for a pipeline that makes something else.

    steps
        None for the pipeline's own number.
    """
    given = {} if steps is None else {"num_inference_steps": steps}
    made = pipe(prompt, generator=torch.Generator().manual_seed(seed), **given)
    images = getattr(made, "images", None)
    if not images:
        raise HostError(f"{type(pipe).__name__} makes no pictures: choose a pipeline that does")
    picture: Image = images[0]
    return picture


def sheet(rows: Sequence[Sequence[Cell]]) -> Image:
    """All of them, the caption of each above it."""
    from PIL import Image, ImageDraw, ImageFont

    large = [[_enlarged(cell.picture) for cell in row] for row in rows]
    heights = [max(picture.height for picture in row) + LINE + GAP for row in large]
    width = max(sum(picture.width + GAP for picture in row) for row in large) + GAP
    whole = Image.new("RGB", (width, sum(heights) + GAP), "white")
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(SIZE)
    top = GAP
    for row, pictures, height in zip(rows, large, heights):
        left = GAP
        for cell, picture in zip(row, pictures):
            pen.text((left, top), _cut(cell.caption, picture.width, font), "black", font)
            whole.paste(picture, (left, top + LINE))
            left += picture.width + GAP
        top += height
    return whole


def _enlarged(picture: Image) -> Image:
    times = math.ceil(LEAST / picture.width)
    return picture.convert("RGB").resize((picture.width * times, picture.height * times), 0)


def _cut(text: str, width: int, font: Any) -> str:
    """As much of a text as fits."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
