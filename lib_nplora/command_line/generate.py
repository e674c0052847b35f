"""A pipeline's pictures of a pair, one for each method and each mu, on one sheet."""

from __future__ import annotations

import argparse

from tqdm import tqdm  # type: ignore[import-untyped]

from ..files import replacing
from ..jobs.new_file import check_new
from ..methods.table import third
from ..pipelines.drawing import Cell, draw, sheet
from ..pipelines.fusing import Pair, on_disk
from ..pipelines.observing import Looks
from ..pipelines.opening import open_pipeline
from ..request.request import FusionRequest
from .options import requests_of


def generate(arguments: argparse.Namespace) -> list[str]:
    """Write the sheet. Returns what the user might not expect of it, each thing once.

    Raises FileError, MismatchError, RequestError, HostError.
    """
    check_new(arguments.output, ".png", arguments.overwrite, (arguments.content, arguments.style))
    for path in (arguments.content, arguments.style):
        on_disk(path)
    rows = requests_of(arguments)
    pipe = open_pipeline(arguments.model, arguments.dtype, arguments.pipeline)
    pair = Pair(
        pipe, arguments.content, arguments.style, Looks(arguments.prompt, arguments.prompt, seed=arguments.seed)
    )
    for request in (request for row in rows for request in row):
        pair.checked(request)
    cells: list[list[Cell]] = []
    remarks: dict[str, None] = {}
    with tqdm(total=sum(map(len, rows)), unit="picture", leave=False, disable=None) as bar:
        for row in rows:
            cells.append([])
            for request in row:
                bar.set_description(caption(request))
                with pair.fused(request) as fusion:
                    picture = draw(pipe, arguments.prompt, arguments.seed, arguments.steps)
                cells[-1].append(Cell(caption(request), picture))
                remarks.update(dict.fromkeys(fusion.remarks))
                bar.update()
    with replacing(arguments.output) as part:
        sheet(cells).save(part, "PNG")
    return list(remarks)


def caption(request: FusionRequest) -> str:
    """As in a tag."""
    own = request.method.parameter(third().name)
    return f"{request.method.name} {own.name}={request.values.text(own)}" if own else request.method.name
