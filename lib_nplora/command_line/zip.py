"""Two LoRAs merged by columns that are trained for the pair."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tqdm import tqdm  # type: ignore[import-untyped]

from ..files import replacing
from ..findings.curve import Curve, curves_png
from ..findings.plots import blank
from ..jobs.new_file import check_new
from ..jobs.pair import Saving
from ..pipelines.beside import SIDES, Side
from ..pipelines.opening import best_device, open_pipeline, usual_dtype
from ..pipelines.pictures import read_pictures
from ..pipelines.zip_file import zip_files
from ..pipelines.zip_state import Loss
from ..pipelines.zip_training import Recipe
from ..pipelines.zipping import Lessons, Zipped

HARDLY = 0.02
"""Mergers that have moved less than this on average make a plain merge."""


def zip_pair(arguments: argparse.Namespace) -> tuple[str, list[str]]:
    """Write the file, and the plot. Returns what came of it, and what the user might not expect.

    Raises FileError, MismatchError, RequestError, HostError, PlotError.
    """
    read = (arguments.content, arguments.style)
    check_new(arguments.output, ".safetensors", arguments.overwrite, read)
    if arguments.plot:
        check_new(arguments.plot, ".png", arguments.overwrite, read)
        blank(1, 1)
    pictures = {side: read_pictures(getattr(arguments, f"{side}_images")) for side in SIDES}
    lessons = Lessons(
        arguments.content_prompt,
        arguments.style_prompt,
        pictures["content"],
        pictures["style"],
        arguments.drawn,
        arguments.size,
    )
    saving = Saving(arguments.output, arguments.dtype, overwrite=arguments.overwrite, spelling=arguments.spelling)
    recipe = Recipe(arguments.lr, arguments.steps, arguments.alike, arguments.seed)
    half = usual_dtype(best_device()) == "bf16"
    pipe = open_pipeline(arguments.model, arguments.model_dtype or ("bf16" if half else "fp32"), arguments.pipeline)
    pipe.set_progress_bar_config(disable=True)
    with Bar(arguments.steps) as bar:
        zipped, remarks = zip_files(pipe, *read, saving, lessons, recipe, arguments.scope, bar.drawing, bar.stepped)
    if arguments.plot:
        with replacing(arguments.plot) as part:
            part.write_bytes(_plot(zipped.losses, f"{arguments.content.stem} and {arguments.style.stem}"))
    return f"{told(zipped)} -> {arguments.output}", [*map(str, remarks), *_hardly_moved(zipped)]


class Bar:
    """A progress bar, if somebody looks at it: pictures, then steps."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._bar = tqdm(leave=False, disable=not sys.stderr.isatty())

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def drawing(self, side: Side, done: int, total: int) -> None:
        self._show(f"{side}: pictures", done, total)

    def stepped(self, done: int, loss: Loss) -> None:
        self._show(f"steps, loss {loss.total:.4g}", done, self._steps)

    def _show(self, words: str, done: int, total: int) -> None:
        if done < self._bar.n:
            self._bar.reset(total)
        self._bar.total = total
        self._bar.set_description(words, refresh=False)
        self._bar.update(done - self._bar.n)


def told(zipped: Zipped) -> str:
    """How many layers, how the loss went, and what became of the mergers."""
    quarter = -(-len(zipped.losses) // 4)
    first, last = (_mean(zipped.losses[part]) for part in (slice(quarter), slice(-quarter, None)))
    sides = []
    for side in SIDES:
        least, greatest = zipped.reach(side)
        sides.append(f"of the {side} {least:.3f} to {greatest:.3f}, {zipped.moved(side):.4f} from 1 on average")
    return (
        f"{len(zipped.mergers)} layers merged by columns in {len(zipped.losses)} steps; loss {first:.4g} in the first "
        f"quarter, {last:.4g} in the last; mergers {' and '.join(sides)}"
    )


def _mean(losses: Sequence[Loss]) -> float:
    """Mean of the two sides' terms, which is how far the merge is from each of them alone."""
    return sum(loss.content + loss.style for loss in losses) / len(losses)


def _hardly_moved(zipped: Zipped) -> list[str]:
    if max(map(zipped.moved, SIDES)) >= HARDLY:
        return []
    return ["the mergers hardly moved, so this is nearly the plain merge: more steps, or --lr 0.01, move them further"]


def _plot(losses: Sequence[Loss], title: str) -> bytes:
    curves = [
        Curve(label, [float(getattr(loss, name)) for loss in losses])
        for label, name in (
            ("together", "total"),
            ("away from the content alone", "content"),
            ("away from the style alone", "style"),
            ("columns that both use", "alike"),
        )
    ]
    return curves_png(title, curves)
