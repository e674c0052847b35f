"""What the command line understands."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from .. import __version__
from ..errors import RequestError
from ..files import DTYPES, HIGHEST_RANK, SPELLINGS, parse_size
from ..maths.rank_rule import RankRule
from ..methods.method import Method
from ..methods.parameter import Parameter
from ..methods.selection import MOST_STEPS, USUAL_STEPS
from ..methods.table import method_named, methods, parameters, readers, usual
from ..request.request import FusionRequest
from ..request.tag import read_weight, weighted


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
    content, style = (
        weighted(file.stem, weight)
        for file, weight in (
            (arguments.content, arguments.content_weight),
            (arguments.style, arguments.style_weight),
        )
    )
    given = {name: getattr(arguments, name) for name in parameters()}
    return FusionRequest.of((content,), (style,), arguments.method, **given)


def _add_fusion(command: argparse.ArgumentParser) -> None:
    """The pair of files, and how they are fused."""
    command.add_argument("content", metavar="CONTENT", type=Path, help="LoRA of the subject, a .safetensors file")
    command.add_argument("style", metavar="STYLE", type=Path, help="LoRA of the style, a .safetensors file")
    command.add_argument(
        "--method",
        type=method_named,
        default=usual(),
        help=f"one of: {', '.join(methods())} (default: {usual().name})",
    )
    for parameter in parameters().values():
        command.add_argument(
            f"--{parameter.name}", metavar="X", type=parameter.read, help=_told(parameter).replace("%", "%%")
        )
    for role in ("content", "style"):
        command.add_argument(
            f"--{role}-weight",
            metavar="W",
            type=partial(read_weight, f"{role}-weight"),
            default=read_weight(f"{role}-weight", "1"),
            help=f"weight of the {role} LoRA, by block too: 1,in@0.6 (default: 1)",
        )
    command.add_argument(
        "--base",
        metavar="CHECKPOINT",
        type=Path,
        help="the model's .safetensors file, which DoRA, GLoRA, IA3, OFT and BOFT need to be read",
    )


def _told(parameter: Parameter[Any]) -> str:
    """What a parameter is, for the user."""
    names = [method.name for method in readers(parameter.name)]
    takes = f"{parameter.takes}, by block too: 0.5,mid@2" if parameter.by_block else parameter.takes
    defaults = dict.fromkeys(_default(method, parameter.name) for method in readers(parameter.name))
    default = defaults.popitem()[0] if len(defaults) == 1 else "the method's own"
    return f"for {', '.join(names)}: {parameter.words}; {takes} (default: {default})"


def _default(method: Method, name: str) -> str:
    own = method.parameter(name)
    return own.write(own.default) if own else ""


def _energy(text: str) -> RankRule:
    size = parse_size(text) if text.strip().endswith("%") else None
    if size is None:
        raise RequestError(f"energy={text} is not a share such as 99%")
    return size


def _whole(name: str, most: int, text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= most:
        raise RequestError(f"{name}={text} is not a whole number from 1 to {most}")
    return int(text[:9])
