"""python -m lab.prediction: does what we say of a pair foretell how much its picture changes?

For every pair whose LoRAs are trained, how far the judges' embeddings of its pictures move between mu = 0 and `hard`,
against two things that could foretell it: the share of the content's energy that `hard` removes, which Inspect tells
from the files alone, and how much of what the layers put out it removes, which takes the model at work.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lab import folder
from lab import judge as judges
from lab.demo import fused
from lab.model.pipeline import MiniPipeline
from lab.rows import DIRECT, Row
from lab.sample import STEPS, open_pipeline
from lab.table import NOISES
from lab.words import HELD_OUT_STYLES, HELD_OUT_SUBJECTS
from lib_nplora.hosts.inputs import inputs_watched
from lib_nplora.pipelines import Pair

HARD = Row("NP hard", {"mu": "hard"})

PICTURES = NOISES[:4]
"""Seeds of the pictures of a pair."""

LOOK_AT = NOISES[:1]
"""The ones of those while which the layers are watched."""

SEEDS = [(0, 0), (1, 1), (2, 2), *permutations(range(3), 2)]
"""Training seeds of content and style."""


@dataclass(frozen=True)
class Held:
    """A pair: what was foretold, and what came.

    removed
        Share of the content's energy that `hard` removes.
    at_work
        Norm of what `hard` removes from the layers' outputs, over the norm of those: sqrt(sum E|D x|^2 / sum E|W x|^2)
        over the layers, W their weights at mu = 0, D what W loses with `hard`.
    changed
        One less the cosine of the judges' embeddings of the pictures without and with it, subject and style, mean.
    """

    name: str
    removed: float
    at_work: float
    changed: float

    def __str__(self) -> str:
        return f"{self.name}: removed {self.removed:.3f} at work {self.at_work:.3f} changed {self.changed:.3f}"


def changed(panel: Sequence[judges.Judge], before: Tensor, after: Tensor) -> float:
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


def layers(pipe: MiniPipeline) -> Mapping[str, nn.Module]:
    """All linear layers and convolutions, by part and name."""
    return {
        f"{part}.{name}": module
        for part in ("unet", "text_encoder")
        for name, module in getattr(pipe, part).named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    }


def weights(pipe: MiniPipeline) -> dict[str, Tensor]:
    """Copies of theirs, each (out, in)."""
    return {name: module.get_parameter("weight").detach().clone().flatten(1) for name, module in layers(pipe).items()}


def at_work(pipe: MiniPipeline, pair: Pair, subject: str, hard: Mapping[str, Tensor], steps: int) -> float:
    """See Held. `hard`: the weights as `hard` leaves them."""
    with pair.fuse(**DIRECT.settings):
        direct = weights(pipe)
    changes = {name: weight - hard[name] for name, weight in direct.items() if not torch.equal(weight, hard[name])}
    if not changes:
        return 0.0
    modules = layers(pipe)
    looked_at = {
        (name, what): (name, modules[name], matrix[name])
        for what, matrix in enumerate((changes, direct))
        for name in changes
    }
    with inputs_watched(looked_at) as moments:
        fused(pipe, pair, subject, DIRECT, LOOK_AT, steps)
    removed, put_out = (sum(moments[name, what].mean.trace().item() for name in changes) for what in (0, 1))
    return (removed / put_out) ** 0.5


def hold(pipe: MiniPipeline, panel: Sequence[judges.Judge], subject: str, files: Sequence[Path], steps: int) -> Held:
    pair = Pair(pipe, *files)
    with pair.fuse(**HARD.settings) as fusion:
        removed, hard = fusion.summary.removed, weights(pipe)
    before, after = (fused(pipe, pair, subject, row, PICTURES, steps) for row in (DIRECT, HARD))
    return Held(
        " ".join(file.stem for file in files),
        removed,
        at_work(pipe, pair, subject, hard, steps),
        changed(panel, before, after),
    )


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
    for seeds, subject, style in product(SEEDS, HELD_OUT_SUBJECTS, HELD_OUT_STYLES):
        files = [folder.lora(args.work, name, args.layers, seed) for name, seed in zip((subject, style), seeds)]
        if all(file.exists() for file in files):
            held.append(hold(pipe, panel, subject, files, args.steps))
            print(held[-1], flush=True)
    moved = [one.changed for one in held]
    for name, foretold in (("removed", [one.removed for one in held]), ("at work", [one.at_work for one in held])):
        print(f"{name}: {len(held)} pairs, rank correlation {rank_correlation(foretold, moved):.2f}")


if __name__ == "__main__":
    main()
