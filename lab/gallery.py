"""python -m lab.gallery fox/neon panda/neon -o gallery.png: pairs of the table as pictures, beside the truth.

For eyes that want to know what a judge's numbers stand for. The LoRAs are those of train_lora, here of the regime
`different` (its first trainings); `--seeds 1 1` takes those of training seed 1 on both sides.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image

from lab import folder
from lab.controls import controls
from lab.data import pictures
from lab.demo import alone, fused
from lab.model.pipeline import MiniPipeline
from lab.rows import MEASURED, Row
from lab.sample import STEPS, open_pipeline
from lab.sheet import grid, image
from lib_nplora.pipelines import Pair

PAIRS = ("fox/neon", "fox/duotone", "strawberry/monotone", "panda/thermal", "rocket/duotone", "carrot/monotone")
LABELS = (
    *("direct", "NP 0.5", "NP hard", "K-LoRA", "weights 1, 0.8"),
    *("balance layer", "balance layer, NP 0.5", "balance down"),
)


def pictured(
    pipe: MiniPipeline, files: tuple[Path, Path], subject: str, rows: list[Row], noise: int, steps: int
) -> list[Image.Image]:
    """Each side alone, then a picture a row."""
    pair = Pair(pipe, *files)
    return [
        *alone(pipe, pair, subject, noise, steps),
        *(image(fused(pipe, pair, subject, row, [noise], steps)[0]) for row in rows),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", default=PAIRS, metavar="SUBJECT/STYLE")
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery.png"))
    parser.add_argument("--work", type=Path, default=folder.WORK)
    parser.add_argument("--base", type=Path, help="the pipeline's folder; by default the one that train_base made")
    parser.add_argument("--layers", default="all")
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 1), help="training seeds of content and style")
    parser.add_argument("--noise", type=int, default=20003, help="the pictures' seed; the table's are 20000 to 20015")
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe, truths = open_pipeline(args.base or folder.base(args.work)), pictures(args.work)
    rows = [row for label in LABELS for row in MEASURED if row.label == label]
    lines = []
    with controls():
        for subject, style in (name.split("/") for name in args.pairs):
            content_file, style_file = (
                folder.lora(args.work, name, args.layers, seed) for name, seed in zip((subject, style), args.seeds)
            )
            line = pictured(pipe, (content_file, style_file), subject, rows, args.noise, args.steps)
            lines.append([*line, image(truths.tensor([(subject, style)])[0])])
    columns = ["content\nalone", "style\nalone", *(row.label.replace(", ", ",\n") for row in rows), "the truth"]
    grid(lines, [name.replace("/", "\nin ") for name in args.pairs], columns, side=120).save(args.output)


if __name__ == "__main__":
    main()
