"""What `zip` understands."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..files import DTYPES, SPELLINGS
from ..methods.texts import parse_number, parse_seed
from .values import whole

USUAL_LR = 0.01
PUBLISHED_LR = 5e-5
"""That of the public code (mkshing/ziplora-pytorch)."""

MOST_STEPS, MOST_DRAWN, LARGEST = 100_000, 10_000, 8192


def add_zip(commands: Any) -> None:
    zipped = commands.add_parser("zip", help="train how a pair is merged, column by column, by a model (ZipLoRA)")
    zipped.add_argument("content", metavar="CONTENT", type=Path, help="LoRA of the subject, a .safetensors file")
    zipped.add_argument("style", metavar="STYLE", type=Path, help="LoRA of the style, a .safetensors file")
    add_pipeline(zipped)
    for role, example in (("content", "a photo of sks dog"), ("style", "a house in vangogh style")):
        zipped.add_argument(
            f"--{role}-prompt",
            metavar="TEXT",
            action="append",
            required=True,
            help=f"what the {role} LoRA answers to, such as '{example}'; may be given several times",
        )
        zipped.add_argument(
            f"--{role}-images",
            metavar="PATH",
            type=Path,
            nargs="+",
            default=[],
            help=f"pictures, or folders of them, that the {role} LoRA was trained on (default: none, it draws its own)",
        )
    zipped.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="file to write, .safetensors")
    zipped.add_argument("--overwrite", action="store_true", help="replace OUT, and the plot, if they exist")
    _add_training(zipped)
    zipped.add_argument("--plot", metavar="PNG", type=Path, help="picture of the loss, step by step, .png")
    zipped.add_argument("--dtype", choices=DTYPES, default="fp16", help="number format of OUT (default: %(default)s)")
    zipped.add_argument("--spelling", choices=SPELLINGS, help="names of the layers in OUT (default: the model's usual)")
    zipped.add_argument(
        "--model-dtype",
        choices=("bf16", "fp32"),
        help="number format of the model (default: bf16 on a GPU that knows it, else fp32)",
    )


def add_pipeline(command: argparse.ArgumentParser) -> None:
    """The model that a command runs."""
    command.add_argument(
        "--model", metavar="DIR", type=Path, required=True, help="folder of a pipeline, as diffusers saves it"
    )
    command.add_argument(
        "--pipeline", metavar="MODULE.CLASS", help="the pipeline's class, if diffusers does not have it"
    )


def _add_training(zipped: argparse.ArgumentParser) -> None:
    zipped.add_argument(
        "--lr",
        metavar="X",
        type=_lr,
        default=USUAL_LR,
        help=f"how fast the mergers move: a number, or 'published' for {PUBLISHED_LR:g}, by which they hardly do "
        "(default: %(default)s)",
    )
    zipped.add_argument(
        "--steps", metavar="N", type=partial(whole, "steps", MOST_STEPS), default=100, help="(default: %(default)s)"
    )
    zipped.add_argument(
        "--alike",
        metavar="X",
        type=_alike,
        default=0.01,
        help="how much it costs that both sides use the same columns; 0 for nothing (default: %(default)s)",
    )
    zipped.add_argument(
        "--scope",
        choices=("attention", "all"),
        default="attention",
        help="which layers have mergers: of attention, as in the paper, or all (default: %(default)s)",
    )
    zipped.add_argument(
        "--drawn",
        metavar="N",
        type=partial(whole, "drawn", MOST_DRAWN),
        default=4,
        help="pictures that each side draws to be learnt from, where no images are given (default: %(default)s)",
    )
    zipped.add_argument(
        "--size",
        metavar="PIXELS",
        type=partial(whole, "size", LARGEST),
        help="height and width of what is learnt from (default: the pipeline's own)",
    )
    zipped.add_argument("--seed", metavar="N", type=parse_seed, default=0, help="of all noise (default: %(default)s)")


def _alike(text: str) -> float:
    value = parse_number("alike", text)
    if value < 0:
        raise RequestError(f"alike={text.strip()} is negative: it is a number from 0 up")
    return value


def _lr(text: str) -> float:
    if text.strip().lower() == "published":
        return PUBLISHED_LR
    value = parse_number("lr", text)
    if not 0 < value <= 1:
        raise RequestError(f"lr={text.strip()} is not above 0 and at most 1: 0.01 is usual, 'published' is 5e-5")
    return value
