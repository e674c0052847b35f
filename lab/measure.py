"""python -m lab.measure: does the base model, and each LoRA alone, do its job? The judge's rates, one line each."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch

from lab import folder
from lab import judge as judges
from lab.sample import draw, open_pipeline
from lab.sheet import grid, image
from lab.train_lora import Lesson, lesson, score
from lab.words import STYLES, SUBJECTS, caption

BASE_PAIRS = 110
"""Known pairs that are looked at: ten of every style."""


def known_pairs() -> Lesson:
    """As many subjects of each known style."""
    chance = random.Random(1)
    pairs = [(subject, style) for style in STYLES for subject in chance.sample(SUBJECTS, BASE_PAIRS // len(STYLES))]
    return Lesson("base", tuple(pairs), tuple(caption(*pair) for pair in pairs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loras", nargs="*", type=Path, help="files of train_lora, named SUBJECT-... or STYLE-...")
    parser.add_argument("--work", type=Path, default=folder.WORK)
    parser.add_argument("--base", type=Path, help="the pipeline's folder")
    parser.add_argument("--judge", type=Path, action="append", help="a judge's file; may be given again")
    parser.add_argument("--count", type=int, default=BASE_PAIRS, help="pictures of a line")
    parser.add_argument("-o", "--output", type=Path, help="also draw a sheet of pictures, a row a line")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = open_pipeline(args.base or folder.base(args.work))
    panel = [judges.load(path) for path in args.judge or folder.judges(args.work)]
    rows = []
    for path in [None, *args.loras]:
        told = lesson(path.stem.partition("-")[0]) if path else known_pairs()
        if path:
            pipe.load_lora_weights(path.parent, weight_name=path.name)
        for number, judge in enumerate(panel):
            subject, style, harmonic = score(pipe, judge, told, args.count, seed=9000)
            print(
                f"{told.name} judge {number}: subject {subject:.2f} style {style:.2f} S_harm {harmonic:.3f}", flush=True
            )
        rows.append([image(one) for one in draw(pipe, told.captions[:10], 7000)])
        pipe.unload_lora_weights()
    if args.output:
        grid(rows, ["base", *(path.stem for path in args.loras)], [""] * 10, 96).save(args.output)


if __name__ == "__main__":
    main()
