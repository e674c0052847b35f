"""python -m lab.train_joint 'fox/*' rose/neon: train one LoRA on a subject's and a style's pictures.

That is joint training, the papers' baseline: it needs the pictures of both, and a training for each pair. A file that
is there is not trained again.
"""

from __future__ import annotations

import argparse
import time
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

import torch

from lab import folder
from lab import judge as judges
from lab.data import pictures
from lab.sample import open_pipeline
from lab.train_lora import CONTENT, LAYERS, STYLE, Lesson, Recipe, lesson, save, train
from lab.words import HELD_OUT_STYLES, HELD_OUT_SUBJECTS

STEPS = CONTENT.steps + STYLE.steps
"""As many as both LoRAs of a pair are given."""


def joint_lesson(subject: str, style: str) -> Lesson:
    """Both lessons, the shorter one's pictures as often as it takes to be seen as often as the other's."""
    content, other = lesson(subject), lesson(style)
    times = round(len(other.pairs) / len(content.pairs))
    return Lesson(f"{subject}-{style}", content.pairs * times + other.pairs, content.captions * times + other.captions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="SUBJECT/STYLE", help="patterns: 'fox/*' '*/neon'")
    parser.add_argument("--work", type=Path, default=folder.WORK)
    parser.add_argument("--base", type=Path, help="the pipeline's folder; by default the one that train_base made")
    parser.add_argument("--judge", type=int, default=7, help="the judge's seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", choices=LAYERS, default="all")
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found, judge = pictures(args.work), judges.load(folder.judge(args.work, args.judge))
    recipe = Recipe(args.steps, STYLE.rate, layers=args.layers, seed=args.seed)
    for subject, style in product(HELD_OUT_SUBJECTS, HELD_OUT_STYLES):
        path = folder.joint(args.work, subject, style, recipe.layers, recipe.seed)
        if path.exists() or not any(fnmatchcase(f"{subject}/{style}", pattern) for pattern in args.pairs):
            continue
        began, told = time.monotonic(), joint_lesson(subject, style)
        pipe = open_pipeline(args.base or folder.base(args.work))
        train(pipe, told, found, judge, recipe)
        save(pipe, told.name, path)
        print(f"{path.name}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
