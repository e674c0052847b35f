"""Times a fusion of two SDXL LoRAs against merging the same two directly, in one run.

Direct: for each layer W += scale (up @ down) for the content, then for the style, as Forge does with two `<lora:...>`
tags (A1111 makes one pass more over the product). Fused: the fusion with nothing cached, then the same once a layer.
Seconds are those that one thread was at work, however busy the machine is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import cycle
from statistics import median
from time import process_time
from typing import TypeVar

import torch

from lib_nplora.fusion.walk import fuse
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.cache import ByteLru
from lib_nplora.maths.lowrank import LowRankDelta
from lib_nplora.request.request import FusionRequest, Source

from .arguments import parser
from .sdxl import afresh, random_lora

REQUEST = FusionRequest.of((Source("content"),), (Source("style"),))
OTHER_MU = REQUEST.with_values(mu=2.0)


T = TypeVar("T")

SCALE = 1.0
"""strength * alpha / rank."""


POOL = 2**28
"""Bytes of weights of each shape: all of a model would be 9 GB, but each layer must come from memory, not a cache."""


class Model:
    """Stands for the network: the layers of one shape take turns at a few weights.

    Products are made in memory that is kept, as a GPU's is: what fresh memory costs changes from minute to minute.
    """

    def __init__(self, lora: LoraWeights) -> None:
        layers = Counter(delta.shape for delta in lora.deltas.values())
        self.weights = {
            (out, in_): cycle([torch.ones(out, in_) for _ in range(max(1, min(count, POOL // (4 * out * in_))))])
            for (out, in_), count in layers.items()
        }
        self.products = {shape: (torch.empty(shape), torch.empty(shape)) for shape in layers}

    def add(self, *deltas: LowRankDelta) -> None:
        """Add to the next layer's weight."""
        weight = next(self.weights[deltas[0].shape])
        product, scaled = self.products[deltas[0].shape]
        for delta in deltas:
            weight += torch.mul(torch.mm(delta.up, delta.down, out=product), SCALE, out=scaled)


def measure(model: Model, content: LoraWeights, style: LoraWeights) -> dict[str, float]:
    """One round: seconds of each piece.

    As in a host, all layers are fused before the first is added. Direct and fused additions take turns, layer by layer,
    so that whatever else the machine does falls on both.
    """
    spent = dict.fromkeys(("direct", "maths", "warm", "apply"), 0.0)
    bases = ByteLru(2**32)
    content, style = afresh(content), afresh(style)
    spent["maths"], fused = timed(lambda: fuse(REQUEST, [content], [style], bases))
    for key, delta in fused.deltas.items():
        pair = content.deltas[key], style.deltas[key]
        spent["direct"] += timed(lambda pair=pair: model.add(*pair))[0]
        spent["apply"] += timed(lambda delta=delta: model.add(delta))[0]
    spent["warm"], _ = timed(lambda: fuse(OTHER_MU, [content], [style], bases))
    return spent


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds at work, and what came of them."""
    start = process_time()
    result = work()
    return process_time() - start, result


def main() -> None:
    args = parser("tests.bench", __doc__, 32, 5).parse_args()
    torch.set_num_threads(1)

    content = random_lora("content", args.rank, 1, args.layers)
    style = random_lora("style", args.rank, 2, args.layers)
    model = Model(content)
    rounds = [measure(model, content, style) for _ in range(args.rounds + 1)][1:]
    direct, maths, warm, apply = (median(times[name] for times in rounds) for name in rounds[0])
    fused = median(times["maths"] + times["apply"] for times in rounds)

    print(f"{args.layers} layers, rank {args.rank}, {torch.get_num_threads()} threads, median of {args.rounds} rounds")
    print(f"direct: {direct:.3f} s")
    print(f"fused: {fused:.3f} s")
    print(f"maths, nothing cached: {maths:.3f} s, {100 * maths / direct:.1f} % of direct")
    print(f"maths, another mu: {warm:.3f} s, {100 * warm / direct:.1f} % of direct")
    print(f"added: {apply:.3f} s, {100 * apply / direct:.1f} % of direct")
    print(f"ratio: {fused / direct:.2f}")


if __name__ == "__main__":
    main()
