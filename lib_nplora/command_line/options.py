"""What the command line understands."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from .. import __version__
from ..errors import RequestError
from ..files import DTYPES, HIGHEST_RANK, SPELLINGS, parse_size
from ..layers.by_block import AT
from ..maths.rank_rule import RankRule
from ..methods.method import Method
from ..methods.parameter import Parameter
from ..methods.selection import MOST_STEPS, USUAL_STEPS
from ..methods.table import every_parameter, method_named, methods, readers, third, usual
from ..methods.texts import parse_seed
from ..request.request import FusionRequest
from ..request.tag import read_weight, weighted
from .values import whole
from .zip_options import add_pipeline, add_zip


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
        "--rank", metavar="N", type=partial(whole, "rank", HIGHEST_RANK), help="store every layer with at most rank N"
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
        "--spelling",
        choices=SPELLINGS,
        help="names of the layers in OUT (default: as both files have them, or as is usual for the model)",
    )
    fuse.add_argument("--verbose", action="store_true", help="say for each layer what was removed")
    inspect = commands.add_parser("inspect", help="say what a fusion would be, and write nothing")
    _add_fusion(inspect)
    inspect.add_argument(
        "--steps",
        metavar="N",
        type=partial(whole, "steps", MOST_STEPS),
        default=USUAL_STEPS,
        help="of the sampler, for a method that changes with them (default: %(default)s)",
    )
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.add_argument("--plot", metavar="OUT", type=Path, help="picture to draw, .png")
    inspect.add_argument("--overwrite", action="store_true", help="replace the picture if it exists")
    _add_generate(commands)
    add_zip(commands)
    return main


def request_of(arguments: argparse.Namespace) -> FusionRequest:
    """What a command that fuses a pair is asked for."""
    return _request(arguments, arguments.method, {name: getattr(arguments, _held(name)) for name in every_parameter()})


def requests_of(arguments: argparse.Namespace) -> list[list[FusionRequest]]:
    """What `generate` is asked for: by method, one for each value of mu if the method reads that.

    A method is not given what only others of them read.
    """
    rows = []
    for method in arguments.method:
        others = {one.name for other in arguments.method for one in other.parameters if not method.parameter(one.name)}
        known = every_parameter(observing=True)
        given = {name: getattr(arguments, _held(name)) for name in known if name not in others}
        column = third().name
        several = given.pop(column, None) or [None]
        if not method.parameter(column):
            several = several[:1]
        rows.append([_request(arguments, method, {**given, column: value}) for value in several])
    return rows


def _request(arguments: argparse.Namespace, method: Method, given: Mapping[str, Any]) -> FusionRequest:
    content, style = (
        weighted(file.stem, weight)
        for file, weight in (
            (arguments.content, arguments.content_weight),
            (arguments.style, arguments.style_weight),
        )
    )
    return FusionRequest.of((content,), (style,), method, **given)


def _add_generate(commands: Any) -> None:
    generate = commands.add_parser("generate", help="draw what a diffusers pipeline makes of a pair, as one picture")
    add_pipeline(generate)
    for role, of in (("content", "subject"), ("style", "style")):
        generate.add_argument(
            f"--{role}", metavar="LORA", type=Path, required=True, help=f"LoRA of the {of}, a .safetensors file"
        )
    generate.add_argument("--prompt", metavar="TEXT", required=True, help="what to draw")
    generate.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="picture to write, .png")
    generate.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    generate.add_argument(
        "--seed", metavar="N", type=parse_seed, default=0, help="of the noise, the same for all (default: 0)"
    )
    generate.add_argument(
        "--steps", metavar="N", type=partial(whole, "steps", MOST_STEPS), help="(default: the pipeline's own)"
    )
    generate.add_argument(
        "--dtype", choices=DTYPES, help="number format of the model (default: fp32 on a CPU, bf16 or fp16 on a GPU)"
    )
    generate.add_argument(
        "--method",
        metavar="X,X",
        type=lambda text: [method_named(name) for name in text.split(",")],
        default=[usual()],
        help=f"a row of pictures for each: {', '.join(methods(observing=True))} (default: {usual().name})",
    )
    _add_values(generate, listed=third().name, observing=True)


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
    _add_values(command)
    command.add_argument(
        "--base",
        metavar="CHECKPOINT",
        type=Path,
        help="the model's .safetensors file, which DoRA, GLoRA, IA3, OFT and BOFT need to be read",
    )


def _add_values(command: argparse.ArgumentParser, listed: str = "", observing: bool = False) -> None:
    """The parameters of the methods, and the weights.

    listed
        A parameter of which several values may be given.
    observing
        Whether methods may look at the model.
    """
    taken = {option for action in command._actions for option in action.option_strings}
    for parameter in every_parameter(observing).values():
        several = parameter.name == listed
        command.add_argument(
            f"--method-{parameter.name}" if f"--{parameter.name}" in taken else f"--{parameter.name}",
            dest=_held(parameter.name),
            metavar="X,X" if several else "X",
            type=partial(_several, parameter) if several else parameter.read,
            help=("a picture for each: " * several + _told(parameter, observing)).replace("%", "%%"),
        )
    for role in ("content", "style"):
        command.add_argument(
            f"--{role}-weight",
            metavar="W",
            type=partial(read_weight, f"{role}-weight"),
            default=read_weight(f"{role}-weight", "1"),
            help=f"weight of the {role} LoRA, by block too: 1,in@0.6 (default: 1)",
        )


def _held(parameter: str) -> str:
    """Under what the arguments hold the value of a parameter."""
    return f"value_of_{parameter}"


def _several(parameter: Parameter[Any], text: str) -> list[Any]:
    """The values in `0,0.5,mid@2,hard`: what stands for a block belongs to the value before it. Raises RequestError."""
    return [parameter.read(one) for one in re.split(f",(?![^,]*{AT})", text)]


def _told(parameter: Parameter[Any], observing: bool) -> str:
    """What a parameter is, for the user."""
    names = [method.name for method in readers(parameter.name, observing)]
    takes = f"{parameter.takes}, by block too: 0.5,mid@2" if parameter.by_block else parameter.takes
    defaults = dict.fromkeys(_default(method, parameter.name) for method in readers(parameter.name, observing))
    default = (defaults.popitem()[0] or "none") if len(defaults) == 1 else "the method's own"
    return f"for {', '.join(names)}: {parameter.words}; {takes} (default: {default})"


def _default(method: Method, name: str) -> str:
    own = method.parameter(name)
    return own.write(own.default) if own else ""


def _energy(text: str) -> RankRule:
    size = parse_size(text) if text.strip().endswith("%") else None
    if size is None:
        raise RequestError(f"energy={text} is not a share such as 99%")
    return size
