"""Times a fusion of two SDXL LoRAs against merging the same two directly, in one run.

Direct: for each layer W += up @ down for the content, then for the style, as a host does with two `<lora:...>` tags.
Fused: the fusion with nothing cached, then W += up @ down once a layer. Both sides write their products into the same
buffers: fresh ones of 50 MB cost page faults, which would drown the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from statistics import median
from time import perf_counter

import torch

from lib_nplora.cache import ByteLru
from lib_nplora.fusion import fuse
from lib_nplora.request import FusionRequest, Source
from lib_nplora.weights import FusedLora, LoraWeights, ModuleKey

from .sdxl import random_lora, shapes

REQUEST = FusionRequest((Source("content"),), (Source("style"),))
OTHER_MU = replace(REQUEST, mu=2.0)


class Model:
    """Stands for the network: one weight a shape, shared by the layers of that shape. All of them would be 9 GB."""

    def __init__(self, pair: Iterable[LoraWeights]) -> None:
        wanted = {delta.shape for lora in pair for delta in lora.deltas.values()}
        self.weights = {shape: torch.ones(shape) for shape in wanted}
        self.products = {shape: torch.ones(shape) for shape in wanted}

    def add(self, lora: LoraWeights | FusedLora, key: ModuleKey) -> None:
        delta = lora.deltas[key]
        self.weights[delta.shape] += torch.mm(delta.up, delta.down, out=self.products[delta.shape])


def seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def measure(model: Model, content: LoraWeights, style: LoraWeights) -> dict[str, float]:
    """One round: the time of each piece in seconds."""
    bases = ByteLru(2**32)
    fused: list[FusedLora] = []

    def direct() -> None:
        for key in content.deltas:
            model.add(content, key)
            model.add(style, key)

    def apply() -> None:
        for key in fused[0].deltas:
            model.add(fused[0], key)

    return {
        "direct": seconds(direct),
        "maths": seconds(lambda: fused.append(fuse(REQUEST, [content], [style], bases))),
        "apply": seconds(apply),
        "warm": seconds(lambda: fuse(OTHER_MU, [content], [style], bases)),
    }


def main() -> None:
    layers = len(list(shapes()))
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--layers", type=int, default=layers, help=f"how many of the {layers} layers (default: all)")
    parser.add_argument("--rank", type=int, default=32, help="rank of both LoRAs (default: 32)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, after one to warm up (default: 5)")
    parser.add_argument("--threads", type=int, help="threads of torch; 1 is steadiest on a machine that is not idle")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)

    content = random_lora("content", args.rank, 1, args.layers)
    style = random_lora("style", args.rank, 2, args.layers)
    model = Model((content, style))
    rounds = [measure(model, content, style) for _ in range(args.rounds + 1)][1:]
    direct, maths, warm = (median(times[name] for times in rounds) for name in ("direct", "maths", "warm"))
    fused = median(times["maths"] + times["apply"] for times in rounds)

    print(f"{args.layers} layers, rank {args.rank}, {torch.get_num_threads()} threads, median of {args.rounds} rounds")
    print(f"direct: {direct:.3f} s")
    print(f"fused: {fused:.3f} s")
    print(f"maths, nothing cached: {maths:.3f} s, {100 * maths / direct:.1f} % of direct")
    print(f"maths, another mu: {warm:.3f} s, {100 * warm / direct:.1f} % of direct")
    print(f"ratio: {fused / direct:.2f}")


if __name__ == "__main__":
    main()
