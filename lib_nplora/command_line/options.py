"""What the command line understands."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import NoReturn

from .. import __version__
from ..errors import RequestError
from ..files import DTYPES, HIGHEST_RANK, SPELLINGS, parse_size
from ..maths.rank_rule import RankRule
from ..methods.selection import MOST_STEPS, USUAL_STEPS
from ..methods.table import METHODS, OPTIONS, method_named
from ..request.request import PARSERS, FusionRequest, Source, parse_mu, parse_number


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the rest of the program does."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message} (see {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    main = _Parser(prog="python -m lib_nplora", description="Fuse LoRA files.")
    main.add_argument("--version", action="version", version=__version__)
    commands = main.add_subparsers(metavar="COMMAND", dest="command", required=True)
    fuse = commands.add_parser("fuse", help="fuse a content LoRA and a style LoRA into one file")
    _add_fusion(fuse)
    fuse.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="file to write, .safetensors")
    fuse.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    size = fuse.add_mutually_exclusive_group()
    size.add_argument(
        "--rank", metavar="N", type=partial(_whole, "rank", HIGHEST_RANK), help="store every layer with at most rank N"
    )
    size.add_argument(
        "--energy",
        metavar="P%%",
        type=_energy,
        help="store every layer with the fewest directions that hold this share",
    )
    size.add_argument("--full", action="store_true", help="store layers that have no small rank whole")
    fuse.add_argument("--dtype", choices=DTYPES, default="fp16", help="number format of OUT (default: %(default)s)")
    fuse.add_argument(
        "--spelling", choices=SPELLINGS, help="names of the layers in OUT (default: kohya for a UNet, else diffusers)"
    )
    fuse.add_argument("--verbose", action="store_true", help="say for each layer what was removed")
    inspect = commands.add_parser("inspect", help="say what a fusion would be, and write nothing")
    _add_fusion(inspect)
    inspect.add_argument(
        "--steps",
        metavar="N",
        type=partial(_whole, "steps", MOST_STEPS),
        default=USUAL_STEPS,
        help="of the sampler, for a method that changes with them (default: %(default)s)",
    )
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.add_argument("--plot", metavar="OUT", type=Path, help="picture to draw, .png")
    inspect.add_argument("--overwrite", action="store_true", help="replace the picture if it exists")
    return main


def request_of(arguments: argparse.Namespace) -> FusionRequest:
    """What a command that fuses a pair is asked for."""
    content = Source(arguments.content.stem, arguments.content_weight, arguments.content_weight)
    style = Source(arguments.style.stem, arguments.style_weight, arguments.style_weight)
    shared = {name: getattr(arguments, name) for name in ("mu", "k", "method", *OPTIONS)}
    return FusionRequest((content,), (style,), **shared)


def _add_fusion(command: argparse.ArgumentParser) -> None:
    """The pair of files, and how they are fused."""
    command.add_argument("content", metavar="CONTENT", type=Path, help="LoRA of the subject, a .safetensors file")
    command.add_argument("style", metavar="STYLE", type=Path, help="LoRA of the style, a .safetensors file")
    command.add_argument(
        "--mu",
        type=parse_mu,
        default=FusionRequest.mu,
        help="how strongly the style is protected, from 0 (plain merge) up, or 'hard' (default: %(default)s)",
    )
    command.add_argument(
        "--k",
        type=RankRule.parse,
        default=RankRule(),
        help="how many of the style's directions are protected: all, 8, 90%% (default: %(default)s)",
    )
    command.add_argument(
        "--method",
        type=_method,
        default=FusionRequest.method,
        help=f"one of: {', '.join(METHODS)} (default: %(default)s)",
    )
    for name, meaning in _MEANING.items():
        readers = ", ".join(method for method, row in METHODS.items() if name in row.reads)
        command.add_argument(
            f"--{name}", metavar="X", type=PARSERS[name], help=f"for {readers}: {meaning} (default: the method's own)"
        )
    for role in ("content", "style"):
        command.add_argument(
            f"--{role}-weight",
            metavar="W",
            type=partial(parse_number, f"{role}-weight"),
            default=1.0,
            help=f"weight of the {role} LoRA (default: 1)",
        )
    command.add_argument(
        "--base",
        metavar="CHECKPOINT",
        type=Path,
        help="the model's .safetensors file, which DoRA, GLoRA, IA3, OFT and BOFT need to be read",
    )


_MEANING = {
    "alpha": "how much the style gains by the last step",
    "beta": "how strong the style is at the first step",
    "scope": "layers that take turns, attention or all",
    "density": "share of the values that is kept, 0.2 or 20%%",
    "seed": "picks what is dropped at random",
}
"""What each of OPTIONS is, for the user."""


def _method(name: str) -> str:
    method_named(name)
    return name


def _energy(text: str) -> RankRule:
    size = parse_size(text) if text.strip().endswith("%") else None
    if size is None:
        raise RequestError(f"energy={text} is not a share such as 99%")
    return size


def _whole(name: str, most: int, text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= most:
        raise RequestError(f"{name}={text} is not a whole number from 1 to {most}")
    return int(text[:9])
