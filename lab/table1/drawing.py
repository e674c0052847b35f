"""Pictures of every pair by every row, scored as they come: a line of JSON each, so that a stopped run goes on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.drawn import Drawn, Trained
from lab.rows import Row
from lab.scores import Entry
from lab.table import LOOKS_AT, NOISES
from lab.table1.eyes import Scorer, reading
from lab.table1.sides import PROMPT, Side, fused_prompt
from lib_nplora.files import replacing
from lib_nplora.pipelines import Looks, Pair
from lib_nplora.pipelines.drawing import draw

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, eq=False)
class Wanted:
    """A content and a style from these training seeds, whose LoRAs are there."""

    content: Side
    style: Side
    trained: Trained

    @classmethod
    def of(cls, content: Side, style: Side, seeds: tuple[int, int], made: Path) -> Wanted:
        """`made` is the folder of LoRAs that were trained here."""
        files = [side.lora(seed, made) for side, seed in zip((content, style), seeds)]
        besides = tuple(path for side in (content, style) for path in (side.folder / PROMPT, *side.files))
        return cls(content, style, Trained(content.name, style.name, seeds, *files, besides=besides))

    @property
    def prompt(self) -> str:
        return fused_prompt(self.content, self.style)

    @property
    def looks(self) -> Looks:
        """What the pipeline draws for methods that look at it: what either LoRA was trained for, without guidance."""
        content, style = (list(dict.fromkeys(side.prompts))[:LOOKS_AT] for side in (self.content, self.style))
        return Looks(content, style, seed=30000, given={"guidance_scale": 1.0})


@dataclass(frozen=True, eq=False)
class Studio:
    """What is the same for all pictures.

    pictures
        Folder in which they are kept, to be looked at.
    """

    pipe: Any
    scorers: Sequence[Scorer]
    there: Drawn
    pictures: Path
    steps: int

    def draw_missing(self, wanted: Sequence[Wanted], rows: Sequence[Row], count: int) -> None:
        """All rows of all pairs, `count` pictures each; what is there already is left as it is."""
        entries = self.there.entries([one.trained for one in wanted])
        done = {(entry.pair, entry.method): set(entry.noises) for entry in entries}
        for number, one in enumerate(wanted, 1):
            missing = _missing(one, rows, NOISES[:count], done)
            if missing:
                self._draw_pair(one, missing)
                told = f"{one.trained.subject} {one.trained.style} {one.trained.seeds}"
                print(f"{told}: {len(missing)} rows ({number}/{len(wanted)})", flush=True)

    def _draw_pair(self, one: Wanted, missing: Sequence[tuple[Row, Sequence[int]]]) -> None:
        trained = one.trained
        pair = Pair(self.pipe, trained.content_file, trained.style_file, one.looks)
        for row, noises in missing:
            with pair.fuse(**row.settings):
                images = [draw(self.pipe, one.prompt, noise, self.steps) for noise in noises]
            for noise, image in zip(noises, images):
                self._keep(image, trained, f"{row.label} {noise}")
            scores = tuple(reading(scorer, images, one.content.pictures, one.style.pictures) for scorer in self.scorers)
            made_of = self.there.made_of(trained, row)
            self.there.add(
                Entry(trained.subject, trained.style, trained.seeds, row.label, scores, tuple(noises), made_of)
            )

    def _keep(self, image: Image, trained: Trained, name: str) -> None:
        folder = self.pictures / "-".join(map(str, trained.names))
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"{re.sub('[^a-zA-Z0-9.]+', '-', name)}.png") as part:
            image.save(part, "PNG")


def _missing(
    one: Wanted, rows: Sequence[Row], noises: Sequence[int], done: Mapping[tuple[Any, str], set[int]]
) -> list[tuple[Row, list[int]]]:
    """Rows with the noises that lack."""
    found = [
        (row, [noise for noise in noises if noise not in done.get((one.trained.names, row.label), ())]) for row in rows
    ]
    return [(row, left) for row, left in found if left]
