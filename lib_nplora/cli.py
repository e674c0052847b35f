"""The command line: python -m lib_nplora fuse CONTENT STYLE -o OUT.safetensors"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from . import __version__
from .cache import ByteLru
from .errors import FileError, MismatchError, NploraError
from .files import Base, LoraFile, Loss, Sizing, read_lora, write_lora
from .fusion import FusedLayer, fuse_layers, layers
from .options import parser
from .request import FusionRequest, Source, format_number
from .traits import accelerator
from .weights import LayerReport, LoraWeights, ModuleKey, Outcome, Summary

Reports = dict[ModuleKey, LayerReport]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 2 after one line on stderr; 130 if the user stopped it."""
    try:
        arguments = parser().parse_args(argv)
        _fuse(arguments)
        sys.stdout.flush()
        return 0
    except NploraError as error:
        print("nplora:", _one_line(str(error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _one_line(text: str) -> str:
    """Names come from files and may hold anything: what a terminal would obey is shown as its code, long ones cut."""
    words = (f"{word[:120]}...{word[-60:]}" if len(word) > 200 else word for word in text.split())
    text = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in " ".join(words))
    return text if len(text) <= 900 else f"{text[:900]}..."


def _fuse(arguments: argparse.Namespace) -> None:
    output: Path = arguments.output
    inputs = [arguments.content, arguments.style, *filter(None, [arguments.base])]
    _check_output(output, arguments.overwrite, inputs)
    base = Base(arguments.base) if arguments.base else None
    content, style = read_lora(arguments.content, base), read_lora(arguments.style, base)
    _check_pair(content, style)

    request = FusionRequest(
        (Source(content.weights.name, arguments.content_weight, arguments.content_weight),),
        (Source(style.weights.name, arguments.style_weight, arguments.style_weight),),
        mu=arguments.mu,
        k=arguments.k,
        method=arguments.method,
    )
    reports: Reports = {}
    sizing = Sizing(arguments.rank, arguments.full)
    walk = _watched(request, content.weights, style.weights, reports)
    write_lora(
        output,
        ((layer.key, sizing.fit(layer.key, layer.delta)) for layer in walk),
        arguments.dtype,
        content.family or style.family,
        _provenance(request, content, style, base, sizing),
    )
    for role, lora in (("content", content), ("style", style)):
        if kind := accelerator(lora.weights.name):
            warning = f"'{lora.path.name}' looks like an accelerator LoRA ({kind}), which is no {role}: leave it out"
            print("nplora: warning:", _one_line(warning), file=sys.stderr)
    if arguments.verbose:
        _print_layers(reports)
    if arguments.rank:
        _print_losses(sizing)
    summary = Summary(reports, len(content.weights.unmatched) + len(style.weights.unmatched))
    if not summary.any_fused:
        print("The two LoRAs share no layer that can be fused, so this is a plain merge.")
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
            raise FileError(f"the output '{output}' is one of the files to read: choose another name")
    if not overwrite:
        raise FileError(f"the output '{output}' exists: choose another name, or add --overwrite")


def _check_pair(content: LoraFile, style: LoraFile) -> None:
    """Raises FileError or MismatchError if a fusion would make no sense."""
    if content.sha256 == style.sha256:
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


def _provenance(
    request: FusionRequest, content: LoraFile, style: LoraFile, base: Base | None, sizing: Sizing
) -> dict[str, str]:
    """What the file says about how it was made."""

    def described(lora: LoraFile, source: Source) -> str:
        return json.dumps([{"name": lora.weights.name, "sha256": lora.sha256, "te": source.te, "unet": source.unet}])

    used = base and any(lora.weights.digest != lora.sha256 for lora in (content, style))
    model = {"nplora_base": json.dumps({"name": base.path.stem, "sha256": base.digest})} if base and used else {}
    return {
        "nplora_version": __version__,
        "nplora_contents": described(content, request.contents[0]),
        "nplora_styles": described(style, request.styles[0]),
        "nplora_mu": format_number(request.mu),
        "nplora_k": str(request.k),
        "nplora_method": request.method,
        **({"nplora_rank": str(sizing.rank)} if sizing.rank else {}),
        **model,
    }


def _print_layers(reports: Reports) -> None:
    width = max(len(str(key)) for key in reports)
    for key, report in reports.items():
        note = f"{100 * report.removed:6.2f} % removed" if report.outcome is Outcome.FUSED else report.reason
        print(_printable(f"{key!s:{width}}  {report.outcome.value:12}  {note}"))


def _print_losses(sizing: Sizing) -> None:
    width = max((len(str(key)) for key in sizing.losses), default=0)
    for key, loss in sizing.losses.items():
        print(_printable(f"{key!s:{width}}  {_ranks(loss)}  {100 * loss.share:6.2f} % of its energy lost"))
    cut = f"{len(sizing.losses)} layers cut to rank {sizing.rank}"
    print(f"{cut}: {100 * sizing.lost:.2f} % of their energy lost")


def _ranks(loss: Loss) -> str:
    return f"rank {loss.before or 'any'} -> {loss.after}"


def _printable(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode().rstrip()
