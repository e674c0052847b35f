"""python -m lab.demo -o demo.png: one picture of what each method makes of a subject and a style.

A row a pair: the content LoRA alone, the style LoRA alone on a subject that the model knows, both fused in several
ways from the same noise, and how the subject truly looks in that style. Needs no network.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from lab import shipped
from lab.controls import controls
from lab.model.pipeline import MiniPipeline
from lab.rows import SHOWN, Row
from lab.sample import STEPS, draw, open_pipeline
from lab.sheet import grid, image
from lab.words import CLASS, content_caption, fused_caption, style_caption
from lib_nplora.pipelines import Pair

SHOWN_PAIRS = (("fox", "neon"), ("strawberry", "duotone"))
"""The subjects and styles whose LoRAs are shipped."""

KNOWN_LIKE = {"animal": "cat-face", "plant": "tulip", "food": "red-apple", "thing": "house"}
"""For the style alone: a subject that the base model knows, by class."""

ALONE_IN = "noto"
"""For the content alone: a style that the base model knows."""


def alone(pipe: MiniPipeline, pair: Pair, subject: str, seed: int, steps: int) -> list[Image.Image]:
    """What each LoRA does by itself, on what the base model knows of the other side."""
    with pair.fuse(method="direct", c=1, s=0):
        content = draw(pipe, [content_caption(subject, ALONE_IN)], seed, steps)
    with pair.fuse(method="direct", c=0, s=1):
        style = draw(pipe, [style_caption(KNOWN_LIKE[CLASS[subject]])], seed, steps)
    return [image(content[0]), image(style[0])]


def fused(pipe: MiniPipeline, pair: Pair, subject: str, row: Row, noises: Sequence[int], steps: int) -> torch.Tensor:
    """A picture a noise: (noises, 3, 48, 48)."""
    with pair.fuse(**row.settings):
        return draw(pipe, [fused_caption(subject)] * len(noises), noises, steps)


def demo(pipe: MiniPipeline, seed: int, steps: int) -> Image.Image:
    rows = []
    for subject, style in SHOWN_PAIRS:
        pair = Pair(pipe, shipped.lora(subject), shipped.lora(style))
        pictures = alone(pipe, pair, subject, seed, steps)
        pictures += [image(fused(pipe, pair, subject, row, range(seed, seed + 1), steps)[0]) for row in SHOWN]
        rows.append([*pictures, shipped.truth(subject, style)])
    labels = [f"{subject}\nin {style}" for subject, style in SHOWN_PAIRS]
    columns = ["content alone", "style alone", *(row.label for row in SHOWN), "the truth"]
    return grid(rows, labels, columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("demo.png"))
    parser.add_argument("--seed", type=int, default=1, help="of the noise")
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    began = time.monotonic()
    with controls():
        demo(open_pipeline(shipped.BASE), args.seed, args.steps).save(args.output)
    print(f"{args.output}: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
