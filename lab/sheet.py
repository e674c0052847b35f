"""Labelled grids of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

GAP = 4
"""Pixels between pictures."""


def image(picture: torch.Tensor) -> Image.Image:
    """A picture (3, height, width) from -1 to 1 as an image."""
    pixels = ((picture.clamp(-1, 1) + 1) * 127.5).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def grid(
    rows: Sequence[Sequence[Image.Image | None]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    side: int = 144,
) -> Image.Image:
    """Rows of images, each `side` pixels wide, with words left of them and above; None leaves a place empty."""
    font = ImageFont.load_default(max(10, side // 10))
    left = max((font.getlength(line) for label in row_labels for line in label.split("\n")), default=0)
    margin = int(left) + 2 * GAP if any(row_labels) else GAP
    lines = max((label.count("\n") + 1 for label in column_labels), default=0)
    top = lines * (font.size + GAP) + GAP if any(column_labels) else GAP
    columns = max(map(len, rows))
    sheet = Image.new("RGB", (margin + columns * (side + GAP), top + len(rows) * (side + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, label in enumerate(column_labels):
        middle = margin + column * (side + GAP) + side // 2
        pen.multiline_text((middle, top - GAP), label, "black", font, anchor="md", align="center")
    for row, pictures in enumerate(rows):
        height = top + row * (side + GAP)
        pen.multiline_text((GAP, height + side // 2), row_labels[row], "black", font, anchor="lm")
        for column, picture in enumerate(pictures):
            if picture is not None:
                large = picture.resize((side, side), Image.Resampling.BICUBIC)
                sheet.paste(large, (margin + column * (side + GAP), height))
    return sheet
