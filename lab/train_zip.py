"""python -m lab.train_zip 'fox/*' rose/neon: merge the LoRAs of pairs by columns that are trained for each (ZipLoRA).

Each side draws what is learnt from, by prompts that its LoRA was trained for. A file that is there is not made again,
and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from lab import folder
from lab.drawn import Trained
from lab.model.pipeline import MiniPipeline
from lab.rows import ZIPPED
from lab.sample import open_pipeline
from lab.table import REGIMES, Wanted, looks
from lib_nplora.jobs.pair import Saving
from lib_nplora.pipelines.zip_file import zip_files
from lib_nplora.pipelines.zip_training import Recipe
from lib_nplora.pipelines.zipping import Lessons, Zipped


def zip_one(pipe: MiniPipeline, one: Trained, recipe: Recipe) -> Zipped:
    """Writes the file of the pair."""
    asked = looks(one.subject)
    lessons = Lessons(asked.prompts("content"), asked.prompts("style"), drawn=len(asked.content))
    saving = Saving(one.of_pair[ZIPPED], "fp32", spelling="diffusers")
    saving.output.parent.mkdir(exist_ok=True)
    zipped, _ = zip_files(
        pipe, one.content_file, one.style_file, saving, lessons, recipe, "attention", lambda *_: None, lambda *_: None
    )
    return zipped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="SUBJECT/STYLE", help="patterns: 'fox/*' '*/neon'")
    parser.add_argument("--work", type=Path, default=folder.WORK)
    parser.add_argument("--base", type=Path, help="the pipeline's folder; by default the one that train_base made")
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--layers", default="all", help="those of the LoRAs; of these, attention has mergers")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--lr", type=float, default=Recipe.lr)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = open_pipeline(args.base or folder.base(args.work))
    wanted = Wanted(layers=args.layers, pairs=tuple(args.pairs))
    for regime in args.regimes:
        for one in wanted.trained(args.work, regime):
            if not one.of_pair[ZIPPED].exists():
                began = time.monotonic()
                zip_one(pipe, one, Recipe(args.lr, args.steps))
                print(f"{one.of_pair[ZIPPED].name}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
