"""Times what preparing K-LoRA's schedule costs next to preparing the plain merge, in one run.

Prepared: all that happens before the first step, for two SDXL LoRAs. Direct: their factors put together. klora, first:
with nothing kept, so each layer's magnitudes are made, summed and its largest found. klora, again: with other weights,
the sums kept. Below: the magnitudes of one layer, summed and their largest, ours and by torch.topk.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import torch

from lib_nplora.fusion.walk import fuse
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.delta import Delta
from lib_nplora.maths.lowrank import LowRankDelta, exact_math
from lib_nplora.methods.selection import importance, top_k
from lib_nplora.request.request import FusionRequest, Source

from .__main__ import timed
from .arguments import parser
from .sdxl import afresh, random_lora

DIRECT = FusionRequest.of((Source("content"),), (Source("style"),), method="direct")
KLORA = DIRECT.with_method("klora")
LIGHTER = replace(KLORA, contents=(Source("content", 0.8, 0.8),))
SHAPES = ((640, 640), (1280, 1280), (10240, 1280))


def prepared(content: LoraWeights, style: LoraWeights) -> dict[str, float]:
    """One round: seconds of each."""
    kept = ByteLru(2**30)
    spent = {}
    for name, request in (("direct", DIRECT), ("klora, first", KLORA), ("klora, again", LIGHTER)):
        pair = [afresh(content)], [afresh(style)]
        spent[name] = timed(lambda request=request, pair=pair: fuse(request, *pair, kept))[0]
    return spent


def weighed(out: int, in_: int, rank: int) -> dict[str, float]:
    """One round: seconds of each."""
    delta, k = LowRankDelta.from_factors(torch.randn(out, rank), torch.randn(rank, in_)), top_k(rank, rank)
    return {
        "importance": timed(lambda: importance(delta, k))[0],
        "torch.topk": timed(lambda: by_topk(delta, k))[0],
    }


def by_topk(delta: Delta, k: int) -> tuple[float, float]:
    """The same, of the whole matrix at once."""
    magnitudes = delta.dense().abs().flatten()
    top = magnitudes.topk(k, sorted=False).values
    return float(top.sum(dtype=torch.float64)), float(magnitudes.sum(dtype=torch.float64))


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Over all but the first, which warms up."""
    return {name: median(times[name] for times in rounds[1:]) for name in rounds[0]}


def main() -> None:
    arguments = parser("tests.bench.schedule", __doc__, 32, 3)
    args = arguments.parse_args()
    torch.set_num_threads(1)

    content = random_lora("content", args.rank, 1, args.layers)
    style = random_lora("style", args.rank, 2, args.layers)
    spent = medians([prepared(content, style) for _ in range(args.rounds + 1)])
    print(f"{args.layers} layers, rank {args.rank}, {torch.get_num_threads()} threads, median of {args.rounds} rounds")
    for name, seconds in spent.items():
        print(f"{name}: {seconds:.3f} s, {seconds / spent['direct']:.2f} x direct")
    k = top_k(args.rank, args.rank)
    for out, in_ in SHAPES:
        with exact_math():
            times = medians([weighed(out, in_, args.rank) for _ in range(args.rounds + 1)])
        ours, theirs = times["importance"], times["torch.topk"]
        print(f"{out} x {in_}, {k} largest: {1000 * ours:.2f} ms, {ours / theirs:.2f} x torch.topk")


if __name__ == "__main__":
    main()
