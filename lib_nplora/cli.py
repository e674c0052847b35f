"""The command line: python -m lib_nplora fuse CONTENT STYLE -o OUT.safetensors"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm  # type: ignore[import-untyped]

from . import __version__
from .cache import ByteLru
from .errors import FileError, MismatchError, NploraError, RequestError
from .files import DTYPES, LoraFile, read_lora, write_lora
from .fusion import FusedLayer, fuse_layers, layers
from .lowrank import LowRankDelta
from .methods import METHODS, method_named
from .rank_rule import RankRule
from .request import FusionRequest, Source, format_number, parse_mu, parse_number
from .weights import LayerReport, LoraWeights, ModuleKey, Outcome, Summary

Reports = dict[ModuleKey, LayerReport]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 2 after one line on stderr; 130 if the user stopped it."""
    try:
        arguments = _parser().parse_args(argv)
        _fuse(arguments)
        sys.stdout.flush()
        return 0
    except NploraError as error:
        print("nplora:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the rest of the program does."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m lib_nplora", description="Fuse LoRA files.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
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
    fuse.add_argument("--dtype", choices=DTYPES, default="fp16", help="number format of OUT (default: %(default)s)")
    fuse.add_argument("--verbose", action="store_true", help="say for each layer what was removed")
    return parser


def _method(name: str) -> str:
    method_named(name)
    return name


def _fuse(arguments: argparse.Namespace) -> None:
    output: Path = arguments.output
    _check_output(output, arguments.overwrite, (arguments.content, arguments.style))
    content, style = read_lora(arguments.content), read_lora(arguments.style)
    _check_pair(content, style)

    request = FusionRequest(
        (Source(content.weights.name, arguments.content_weight, arguments.content_weight),),
        (Source(style.weights.name, arguments.style_weight, arguments.style_weight),),
        mu=arguments.mu,
        k=arguments.k,
        method=arguments.method,
    )
    reports: Reports = {}
    walk = _watched(request, content.weights, style.weights, reports)
    write_lora(
        output,
        ((layer.key, layer.delta) for layer in walk if isinstance(layer.delta, LowRankDelta)),
        arguments.dtype,
        content.family or style.family,
        _provenance(request, content.weights, style.weights),
    )
    if arguments.verbose:
        _print_layers(reports)
    summary = Summary(reports)
    if not summary.any_fused:
        print("The two LoRAs have no layer in common, so this is a plain merge.")
    print(f"{summary} -> {output}")


def _check_output(output: Path, overwrite: bool, inputs: Sequence[Path]) -> None:
    """Raises FileError unless the file can be written without harm."""
    if output.suffix != ".safetensors":
        raise FileError(f"the output '{output}' does not end in .safetensors: choose such a name")
    if not output.parent.is_dir():
        raise FileError(f"the output folder '{output.parent}' does not exist: create it first")
    if output.is_dir():
        raise FileError(f"the output '{output}' is a folder: name a file in it")
    if not output.exists():
        return
    for path in inputs:
        if path.exists() and output.samefile(path):
            raise FileError(f"the output '{output}' is one of the two LoRAs: choose another name")
    if not overwrite:
        raise FileError(f"the output '{output}' exists: choose another name, or add --overwrite")


def _check_pair(content: LoraFile, style: LoraFile) -> None:
    """Raises FileError or MismatchError if a fusion would make no sense."""
    if content.weights.digest == style.weights.digest:
        raise FileError(f"'{content.path}' and '{style.path}' are the same LoRA: choose two different ones")
    if content.family and style.family and content.family != style.family:
        raise MismatchError(
            f"'{content.path.name}' is made for {content.family.label} and '{style.path.name}' for "
            f"{style.family.label}: choose two LoRAs for the same model"
        )


def _watched(
    request: FusionRequest, content: LoraWeights, style: LoraWeights, reports: Reports
) -> Iterator[FusedLayer]:
    """The fused layers one by one, none of them kept; fills `reports` and moves a progress bar."""
    bases = ByteLru(0)
    total = len(layers([content], [style]))
    with tqdm(total=total, unit="layer", leave=False, disable=not sys.stderr.isatty()) as progress:
        for layer in fuse_layers(request, [content], [style], bases):
            reports[layer.key] = layer.report
            yield layer
            bases.begin_round()
            progress.update()


def _provenance(request: FusionRequest, content: LoraWeights, style: LoraWeights) -> dict[str, str]:
    """What the file says about how it was made."""

    def described(lora: LoraWeights, source: Source) -> str:
        return json.dumps([{"name": lora.name, "sha256": lora.digest, "te": source.te, "unet": source.unet}])

    return {
        "nplora_version": __version__,
        "nplora_contents": described(content, request.contents[0]),
        "nplora_styles": described(style, request.styles[0]),
        "nplora_mu": format_number(request.mu),
        "nplora_k": str(request.k),
        "nplora_method": request.method,
    }


def _print_layers(reports: Reports) -> None:
    width = max(len(str(key.name)) for key in reports)
    for key, report in reports.items():
        removed = f"{100 * report.removed:6.2f} % removed" if report.outcome is Outcome.FUSED else ""
        print(f"{key.name:{width}}  {report.outcome.value:12}  {removed}".rstrip())
