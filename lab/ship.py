"""python -m lab.ship: put what was trained into lab/weights, in half precision."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from PIL import Image

from lab.data import WORK, pictures
from lab.demo import SHOWN_PAIRS
from lab.sample import open_pipeline
from lab.shipped import BASE, JUDGE, lora, truth_path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--judge", type=int, default=7, help="the judge's seed")
    parser.add_argument("--layers", default="all")
    parser.add_argument("--seed", type=int, default=0, help="the LoRAs' seed")
    args = parser.parse_args()
    found = pictures(args.work)
    open_pipeline(args.work / "base" / "pipeline").to(dtype=torch.float16).save_pretrained(BASE)
    shutil.copyfile(args.work / f"judge-{args.judge}.safetensors", JUDGE)
    for name in {name for pair in SHOWN_PAIRS for name in pair}:
        lora(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(args.work / "loras" / f"{name}-{args.layers}-{args.seed}.safetensors", lora(name))
    for pair in SHOWN_PAIRS:
        truth_path(*pair).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(found[pair]).save(truth_path(*pair), optimize=True)


if __name__ == "__main__":
    main()
