"""python -m lab.table: the honest table. Every method on every pair of held-out subject and style.

Draws what is missing, a line of JSON each, and prints the tables of what is there: in full for both regimes, and the
README's. A run that was stopped goes on where it was; rows, pairs, noises and LoRAs may be added later. LoRAs are those
of train_lora: `same` pairs are trained from one seed, as the papers' recipes do; `different` ones from a seed each.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

import torch

from lab import folder, markdown
from lab import judge as judges
from lab.controls import controls
from lab.data import Pictures, pictures
from lab.demo import fused
from lab.drawn import Drawn, Trained
from lab.model.pipeline import MiniPipeline
from lab.rows import JOINT, MEASURED, ZIPPED, Row
from lab.sample import STEPS, draw, open_pipeline
from lab.scores import Entry, judged
from lab.words import (
    HELD_OUT_STYLES,
    HELD_OUT_SUBJECTS,
    STYLES,
    SUBJECTS,
    content_caption,
    fused_caption,
    style_caption,
)
from lib_nplora.pipelines import Looks, Pair

REGIMES = {"different": ((0, 1), (1, 2), (2, 0)), "same": ((0, 0), (1, 1), (2, 2))}
"""Training seeds of content and style."""

NOISES = range(20000, 20016)
"""Seeds of the pictures of a pair; no training and no choice has seen them."""

LOOKS_AT = 4
"""Pictures of each side alone by which methods are told what layers are fed with."""


@dataclass(frozen=True)
class Wanted:
    """What a run is to draw, as far as the LoRAs for it are there.

    pairs
        Patterns of SUBJECT/STYLE.
    rows
        Patterns of labels.
    part
        (one of so many parts, how many): for several processes side by side.
    """

    regimes: tuple[str, ...] = tuple(REGIMES)
    layers: str = "all"
    pairs: tuple[str, ...] = ("*",)
    rows: tuple[str, ...] = ("*",)
    noises: int = len(NOISES)
    part: tuple[int, int] = (1, 1)
    steps: int = STEPS

    def trained(self, work: Path, regime: str) -> Iterator[Trained]:
        for index, (seeds, subject, style) in enumerate(
            product(REGIMES[regime], HELD_OUT_SUBJECTS, HELD_OUT_STYLES), 1
        ):
            files = [folder.lora(work, name, self.layers, seed) for name, seed in zip((subject, style), seeds)]
            mine = index % self.part[1] == self.part[0] % self.part[1]
            if mine and _matches(f"{subject}/{style}", self.pairs) and all(file.exists() for file in files):
                yield Trained(subject, style, seeds, *files, self._of_pair(work, subject, style, seeds))

    def _of_pair(self, work: Path, subject: str, style: str, seeds: tuple[int, int]) -> dict[str, Path]:
        return {
            JOINT: folder.joint(work, subject, style, self.layers, seeds[0]),
            ZIPPED: folder.zipped(work, subject, style, self.layers, seeds),
        }

    @property
    def chosen(self) -> list[Row]:
        return [row for row in MEASURED if _matches(row.label, self.rows)]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def looks(subject: str) -> Looks:
    """What the pipeline draws while it is looked at: prompts that either LoRA was trained for, without guidance."""
    chance = random.Random(3)
    contents = [content_caption(subject, style) for style in chance.sample(STYLES, LOOKS_AT)]
    styles = [style_caption(known) for known in chance.sample(SUBJECTS, LOOKS_AT)]
    return Looks(contents, styles, seed=30000, given={"guidance_scale": 1.0})


def by_one_file(pipe: MiniPipeline, file: Path, subject: str, noises: Sequence[int], steps: int) -> torch.Tensor:
    """As `fused`, by a LoRA that holds both."""
    pipe.load_lora_weights(file.parent, weight_name=file.name)
    try:
        return draw(pipe, [fused_caption(subject)] * len(noises), noises, steps)
    finally:
        pipe.unload_lora_weights()


def draw_missing(
    pipe: MiniPipeline,
    panel: Sequence[judges.Judge],
    found: Pictures,
    there: Drawn,
    pairs: Sequence[Trained],
    wanted: Wanted,
) -> None:
    """Draws what lacks of these pairs, a line each."""
    noises = NOISES[: wanted.noises]
    done = {(entry.pair, entry.method): set(entry.noises) for entry in there.entries(pairs)}
    for number, one in enumerate(pairs, 1):
        missing = [
            (row, left)
            for row in wanted.chosen
            if all(file.exists() for file in one.files(row))
            and (left := [noise for noise in noises if noise not in done.get((one.names, row.label), ())])
        ]
        if not missing:
            continue
        began = time.monotonic()
        pair = Pair(pipe, one.content_file, one.style_file, looks(one.subject))
        truth = found.tensor([(one.subject, one.style)])[0]
        for row, left in missing:
            images = (
                by_one_file(pipe, *one.files(row), one.subject, left, wanted.steps)
                if row.trained
                else fused(pipe, pair, one.subject, row, left, wanted.steps)
            )
            scores = judged(panel, images, one.subject, one.style, truth)
            there.add(Entry(one.subject, one.style, one.seeds, row.label, scores, tuple(left), there.made_of(one, row)))
        spent = time.monotonic() - began
        print(
            f"{one.subject} {one.style} {one.seeds}: {len(missing)} rows, {spent:.0f} s ({number}/{len(pairs)})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=folder.WORK)
    parser.add_argument("--base", type=Path, help="the pipeline's folder")
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--layers", default="all")
    parser.add_argument("--pairs", nargs="+", default=["*"], metavar="SUBJECT/STYLE", help="those alone: fox/* */neon")
    parser.add_argument(
        "--rows", nargs="+", default=["*"], metavar="LABEL", help="those alone: direct 'NP *' 'weights *'"
    )
    parser.add_argument("--noises", type=int, default=len(NOISES), help="pictures of a row and pair (default: all 16)")
    parser.add_argument(
        "--part", type=part, default=(1, 1), metavar="I/N", help="of the pairs, every Nth from the Ith on"
    )
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--print", action="store_true", dest="only_print", help="draw nothing, print what is there")
    parser.add_argument("--short", action="store_true", help="print the README's table alone")
    args = parser.parse_args()
    wanted = Wanted(
        tuple(args.regimes), args.layers, tuple(args.pairs), tuple(args.rows), args.noises, args.part, args.steps
    )
    torch.set_num_threads(1)
    base = args.base or folder.base(args.work)
    by_regime = {}
    with controls():
        for regime in wanted.regimes:
            path = args.work / f"table-{regime}-{wanted.layers}.jsonl"
            there = Drawn(path, [*sorted(base.rglob("*.safetensors")), *folder.judges(args.work)], wanted.steps)
            pairs = list(wanted.trained(args.work, regime))
            if not args.only_print:
                panel = [judges.load(path) for path in folder.judges(args.work)]
                draw_missing(open_pipeline(base), panel, pictures(args.work), there, pairs, wanted)
            by_regime[regime] = markdown.with_tuned(there.entries(pairs))
    print(markdown.short(by_regime) if args.short else markdown.full(by_regime))


def part(text: str) -> tuple[int, int]:
    """1/2 as (1, 2)."""
    first, _, parts = text.partition("/")
    return int(first), int(parts)


if __name__ == "__main__":
    main()
