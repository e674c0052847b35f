"""python -m lab.prediction: does what we say of a pair foretell how much its picture changes?

For every pair whose LoRAs are trained: the share of the content's energy that `hard` removes, which is what users are
told, against how far the judge's embedding of the picture moves between mu = 0 and `hard`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch

from lab import folder
from lab import judge as judges
from lab.demo import fused
from lab.model.pipeline import MiniPipeline
from lab.rows import DIRECT, Row
from lab.sample import STEPS, open_pipeline
from lab.table import NOISES, REGIMES
from lab.words import HELD_OUT_STYLES, HELD_OUT_SUBJECTS
from lib_nplora.pipelines import Pair

HARD = Row("NP hard", {"mu": "hard"})

PICTURES = NOISES[:4]
"""Seeds of the pictures of a pair."""


@dataclass(frozen=True)
class Held:
    """A pair: what was foretold, and what came."""

    name: str
    removed: float
    """Share of the content's energy that `hard` removes."""
    changed: float
    """One less the cosine of the judges' embeddings of the pictures without and with it, subject and style, mean."""


def changed(panel: Sequence[judges.Judge], before: torch.Tensor, after: torch.Tensor) -> float:
    """How far pictures moved in the judges' eyes, 0 to 2."""
    with torch.no_grad():
        moved = [
            1 - (one * other).sum(1).mean().item()
            for judge in panel
            for one, other in zip(judge.embed(before), judge.embed(after))
        ]
    return sum(moved) / len(moved)


def ranks(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """1 for the smallest; values that tie share the mean of their places."""
    array = np.asarray(values)
    below, upto = (array[:, None] > array).sum(1), (array[:, None] >= array).sum(1)
    return (below + 1 + upto) / 2


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's."""
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def hold(pipe: MiniPipeline, panel: Sequence[judges.Judge], subject: str, files: Sequence[Path], steps: int) -> Held:
    pair = Pair(pipe, *files)
    before = fused(pipe, pair, subject, DIRECT, PICTURES, steps)
    with pair.fuse(**HARD.settings) as fusion:
        removed = fusion.summary.removed
    after = fused(pipe, pair, subject, HARD, PICTURES, steps)
    return Held(" ".join(file.stem for file in files), removed, changed(panel, before, after))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=folder.WORK)
    parser.add_argument("--base", type=Path, help="the pipeline's folder")
    parser.add_argument("--layers", default="all")
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = open_pipeline(args.base or folder.base(args.work))
    panel = [judges.load(path) for path in folder.judges(args.work)]
    held = []
    all_seeds = [seeds for regime in REGIMES.values() for seeds in regime]
    for seeds, subject, style in product(all_seeds, HELD_OUT_SUBJECTS, HELD_OUT_STYLES):
        names = zip((subject, style), seeds)
        files = [folder.lora(args.work, name, args.layers, seed) for name, seed in names]
        if all(file.exists() for file in files):
            held.append(hold(pipe, panel, subject, files, args.steps))
            print(f"{held[-1].name}: removed {held[-1].removed:.3f} changed {held[-1].changed:.3f}", flush=True)
    correlation = rank_correlation([one.removed for one in held], [one.changed for one in held])
    print(f"{len(held)} pairs, rank correlation {correlation:.2f}")


if __name__ == "__main__":
    main()
