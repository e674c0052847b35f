"""python -m lab.ship: put what was trained into lab/weights, in half precision."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from PIL import Image

from lab import folder
from lab.data import pictures
from lab.demo import SHOWN_PAIRS
from lab.sample import open_pipeline
from lab.shipped import BASE, JUDGE, lora, truth_path


def forget_folder(pipeline: Path) -> None:
    """Takes out of the pipeline's settings where it was on this machine."""
    for file in pipeline.rglob("*.json"):
        settings = json.loads(file.read_text())
        if settings.pop("_name_or_path", None):
            file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=folder.WORK)
    parser.add_argument("--judge", type=int, default=7, help="the judge's seed")
    parser.add_argument("--layers", default="all")
    parser.add_argument("--seed", type=int, default=0, help="the LoRAs' seed")
    args = parser.parse_args()
    found = pictures(args.work)
    open_pipeline(folder.base(args.work)).to(dtype=torch.float16).save_pretrained(BASE)
    forget_folder(BASE)
    shutil.copyfile(folder.judge(args.work, args.judge), JUDGE)
    for name in {name for pair in SHOWN_PAIRS for name in pair}:
        lora(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder.lora(args.work, name, args.layers, args.seed), lora(name))
    for pair in SHOWN_PAIRS:
        truth_path(*pair).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(found[pair]).save(truth_path(*pair), optimize=True)


if __name__ == "__main__":
    main()
