"""What the command line understands."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import NoReturn

from . import __version__
from .errors import RequestError
from .files import DTYPES
from .fuse_files import HIGHEST_RANK
from .methods import METHODS, method_named
from .rank_rule import RankRule
from .request import FusionRequest, parse_mu, parse_number


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the rest of the program does."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message} (see {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    main = _Parser(prog="python -m lib_nplora", description="Fuse LoRA files.")
    main.add_argument("--version", action="version", version=__version__)
    commands = main.add_subparsers(metavar="COMMAND", required=True)
    fuse = commands.add_parser("fuse", help="fuse a content LoRA and a style LoRA into one file")
    fuse.add_argument("content", metavar="CONTENT", type=Path, help="LoRA of the subject, a .safetensors file")
    fuse.add_argument("style", metavar="STYLE", type=Path, help="LoRA of the style, a .safetensors file")
    fuse.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="file to write, .safetensors")
    fuse.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    fuse.add_argument(
        "--mu",
        type=parse_mu,
        default=FusionRequest.mu,
        help="how strongly the style is protected, from 0 (plain merge) up, or 'hard' (default: %(default)s)",
    )
    fuse.add_argument(
        "--k",
        type=RankRule.parse,
        default=RankRule(),
        help="how many of the style's directions are protected: all, 8, 90%% (default: %(default)s)",
    )
    fuse.add_argument(
        "--method",
        type=_method,
        default=FusionRequest.method,
        help=f"one of: {', '.join(METHODS)} (default: %(default)s)",
    )
    for role in ("content", "style"):
        fuse.add_argument(
            f"--{role}-weight",
            metavar="W",
            type=partial(parse_number, f"{role}-weight"),
            default=1.0,
            help=f"weight of the {role} LoRA (default: 1)",
        )
    fuse.add_argument(
        "--base",
        metavar="CHECKPOINT",
        type=Path,
        help="the model's .safetensors file, which DoRA, GLoRA, IA3, OFT and BOFT need to be read",
    )
    size = fuse.add_mutually_exclusive_group()
    size.add_argument("--rank", metavar="N", type=_rank, help="store every layer with at most rank N")
    size.add_argument("--full", action="store_true", help="store layers that have no small rank whole")
    fuse.add_argument("--dtype", choices=DTYPES, default="fp16", help="number format of OUT (default: %(default)s)")
    fuse.add_argument("--verbose", action="store_true", help="say for each layer what was removed")
    return main


def _method(name: str) -> str:
    method_named(name)
    return name


def _rank(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= HIGHEST_RANK:
        raise RequestError(f"rank={text} is not a whole number from 1 to {HIGHEST_RANK}")
    return int(text[:9])
