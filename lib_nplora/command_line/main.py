"""The command line: python -m lib_nplora fuse|inspect|zip CONTENT STYLE ..., or generate ..."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from tqdm import tqdm  # type: ignore[import-untyped]

from ..errors import NploraError
from ..files import Loss, replacing
from ..findings.groups import Group, groups_by_block, groups_by_part
from ..findings.plots import png
from ..findings.sentences import findings, percent
from ..fusion.outcome import LayerReport, Outcome
from ..jobs.job import PLAIN_MERGE, Progress
from ..jobs.new_file import check_new
from ..jobs.pair import FileFusion, FilePair, Saving, fuse_files, inspect_files, losses_told
from ..layers.key import ModuleKey
from ..maths.rank_rule import RankRule
from ..request.request import FusionRequest
from .generate import generate
from .options import parser, request_of
from .zip import zip_pair


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 2 after one line on stderr; 130 if the user stopped it."""
    try:
        arguments = parser().parse_args(argv)
        _COMMANDS[arguments.command](arguments)
        sys.stdout.flush()
        return 0
    except NploraError as error:
        print("nplora:", _one_line(error.told("command line")), file=sys.stderr)
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
    saving = Saving(
        arguments.output,
        arguments.dtype,
        RankRule(count=arguments.rank) if arguments.rank else arguments.energy,
        arguments.full,
        arguments.overwrite,
        arguments.spelling,
    )
    with _bar() as progress:
        fused = fuse_files(_pair(arguments), saving, progress)
    _warn(fused.remarks)
    if arguments.verbose:
        _print_layers(fused.summary.layers)
    if fused.sizing.size:
        _print_losses(fused)
    if fused.merges_plainly:
        print(PLAIN_MERGE)
    print(f"{fused.summary} -> {arguments.output}")


def _inspect(arguments: argparse.Namespace) -> None:
    pair = _pair(arguments)
    if arguments.plot:
        check_new(arguments.plot, ".png", arguments.overwrite, (pair.content, pair.style, pair.base))
    with _bar() as progress:
        fusion = inspect_files(pair, progress)
    _warn(fusion.remarks)
    if arguments.plot:
        picture = png(fusion, pair.request, arguments.steps)
        with replacing(arguments.plot) as part:
            part.write_bytes(picture)
    letters = fusion.schedule.letters(arguments.steps) if fusion.schedule else {}
    if arguments.json:
        print(json.dumps({"layers": list(_rows(fusion, letters)), "total": _total(fusion, pair.request)}))
        return
    if letters:
        _print_winners(letters)
    _print_blocks(fusion)
    for finding in findings(fusion, pair.request):
        print(finding)
    print(fusion.summary)


def _generate(arguments: argparse.Namespace) -> None:
    _warn(generate(arguments))
    print(arguments.output)


def _zip(arguments: argparse.Namespace) -> None:
    told, remarks = zip_pair(arguments)
    _warn(remarks)
    print(told)


_COMMANDS = {"fuse": _fuse, "inspect": _inspect, "generate": _generate, "zip": _zip}


def _rows(fusion: FileFusion, letters: Mapping[ModuleKey, str]) -> Iterator[dict[str, object]]:
    """The contested layers, if there are any; else all that both LoRAs hold, less norms and biases."""
    for key in letters or fusion.interference:
        row: dict[str, object] = {"module": str(key), "part": key.part}
        if found := fusion.interference.get(key):
            numbers = ("overlap", "chance", "removed", "norm_ratio", "style_rank", "angle")
            row |= {name: getattr(found, name) for name in numbers}
        yield {**row, "winners": letters[key]} if letters else row


def _total(fusion: FileFusion, request: FusionRequest) -> dict[str, object]:
    """What the rows come to, for all layers that both LoRAs hold."""
    total = Group.of(fusion.interference.values())
    numbers = ("layers", "overlap", "chance", "removed", "norm_ratio", "style_rank", "same_start")
    return {**{name: getattr(total, name) for name in numbers}, "findings": [*map(str, findings(fusion, request))]}


def _pair(arguments: argparse.Namespace) -> FilePair:
    return FilePair(arguments.content, arguments.style, request_of(arguments), arguments.base)


def _warn(remarks: Iterable[object]) -> None:
    for remark in remarks:
        print("nplora: warning:", _one_line(str(remark)), file=sys.stderr)


@contextmanager
def _bar() -> Iterator[Progress]:
    """A progress bar, if somebody looks at it."""
    with tqdm(unit="layer", leave=False, disable=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _print_layers(reports: Mapping[ModuleKey, LayerReport]) -> None:
    width = max(len(str(key)) for key in reports)
    for key, report in reports.items():
        note = f"{100 * report.removed:6.2f} % removed" if report.outcome is Outcome.FUSED else report.reason
        print(_printable(f"{key!s:{width}}  {report.outcome.value:12}  {note}"))


def _print_blocks(fusion: FileFusion) -> None:
    groups = {**groups_by_block(fusion.interference), **groups_by_part(fusion.interference)}
    print(f"{'':15}  layers  overlap  x unrelated  removed  content / style")
    for name, group in groups.items():
        ratio = "" if group.norm_ratio is None else f"{group.norm_ratio:.2f}"
        print(
            f"{name:15}  {group.layers:6}  {percent(group.overlap):>7}  {group.times_chance:11.2f}  "
            f"{percent(group.removed):>7}  {ratio:>15}"
        )


def _print_winners(letters: Mapping[ModuleKey, str]) -> None:
    """A column for each step: the content's c or the style's s."""
    width = max(len(str(key)) for key in letters)
    for key, winners in letters.items():
        print(_printable(f"{key!s:{width}}  {winners}"))
    together = "".join(letters.values())
    print(f"The content wins {100 * together.count('c') / len(together):.0f} % of {len(letters)} layers and all steps.")


def _print_losses(fused: FileFusion) -> None:
    width = max((len(str(key)) for key in fused.losses), default=0)
    for key, loss in fused.losses.items():
        print(_printable(f"{key!s:{width}}  {_ranks(loss)}  {100 * loss.share:6.2f} % of its energy lost"))
    print(losses_told(fused))


def _ranks(loss: Loss) -> str:
    return f"rank {loss.before or 'any'} -> {loss.after}"


def _printable(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode().rstrip()
