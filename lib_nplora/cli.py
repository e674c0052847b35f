"""The command line: python -m lib_nplora fuse CONTENT STYLE -o OUT.safetensors"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from tqdm import tqdm  # type: ignore[import-untyped]

from .errors import NploraError
from .files import Loss, Sizing
from .fuse_files import PLAIN_MERGE, FilePair, Saving, fuse_files, losses
from .fusion import FusedLayer, layers
from .options import parser
from .request import FusionRequest, Source
from .weights import LayerReport, LoraWeights, ModuleKey, Outcome


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
    content = Source(arguments.content.stem, arguments.content_weight, arguments.content_weight)
    style = Source(arguments.style.stem, arguments.style_weight, arguments.style_weight)
    request = FusionRequest((content,), (style,), mu=arguments.mu, k=arguments.k, method=arguments.method)
    fused = fuse_files(
        FilePair(arguments.content, arguments.style, request, arguments.base),
        Saving(arguments.output, arguments.dtype, arguments.rank, arguments.full, arguments.overwrite),
        _watched,
    )
    for remark in fused.remarks:
        print("nplora: warning:", _one_line(remark), file=sys.stderr)
    if arguments.verbose:
        _print_layers(fused.summary.layers)
    if arguments.rank:
        _print_losses(fused.sizing)
    if not fused.summary.any_fused:
        print(PLAIN_MERGE)
    print(f"{fused.summary} -> {arguments.output}")


def _watched(content: LoraWeights, style: LoraWeights, walk: Iterator[FusedLayer]) -> Iterator[FusedLayer]:
    """The same layers, with a progress bar that moves."""
    total = len(layers([content], [style]))
    with tqdm(total=total, unit="layer", leave=False, disable=not sys.stderr.isatty()) as progress:
        for layer in walk:
            yield layer
            progress.update()


def _print_layers(reports: Mapping[ModuleKey, LayerReport]) -> None:
    width = max(len(str(key)) for key in reports)
    for key, report in reports.items():
        note = f"{100 * report.removed:6.2f} % removed" if report.outcome is Outcome.FUSED else report.reason
        print(_printable(f"{key!s:{width}}  {report.outcome.value:12}  {note}"))


def _print_losses(sizing: Sizing) -> None:
    width = max((len(str(key)) for key in sizing.losses), default=0)
    for key, loss in sizing.losses.items():
        print(_printable(f"{key!s:{width}}  {_ranks(loss)}  {100 * loss.share:6.2f} % of its energy lost"))
    print(losses(sizing))


def _ranks(loss: Loss) -> str:
    return f"rank {loss.before or 'any'} -> {loss.after}"


def _printable(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode().rstrip()
