"""Times a LoHa with a LoKr against two plain LoRAs of the ranks that these have, in one run.

A LoHa of two halves of rank r has rank r^2, and so has a LoKr of rank r whose w1 is r x r. Each pair is inspected, and
fused with --rank 64.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

from lib_nplora.jobs.pair import FilePair, Saving, fuse_files, inspect_files
from lib_nplora.maths.rank_rule import RankRule
from lib_nplora.request.request import FusionRequest, Source

from .__main__ import timed
from .arguments import parser
from .sdxl import shapes

REQUEST = FusionRequest.of((Source("content"),), (Source("style"),))
KEPT = RankRule(count=64)

Shapes = dict[str, tuple[int, ...]]


def loha(out: int, in_: int, r: int) -> Shapes:
    return {"hada_w1_a": (out, r), "hada_w1_b": (r, in_), "hada_w2_a": (out, r), "hada_w2_b": (r, in_)}


def lokr(out: int, in_: int, r: int) -> Shapes:
    return {"lokr_w1": (r, r), "lokr_w2_a": (out // r, r), "lokr_w2_b": (r, in_ // r)}


def plain(out: int, in_: int, r: int) -> Shapes:
    return {"lora_up.weight": (out, r * r), "lora_down.weight": (r * r, in_)}


PAIRS = {"plain": (plain, plain), "LoHa x LoKr": (loha, lokr)}
"""The kinds of content and style, by the shapes of their tensors for a layer."""


def main() -> None:
    arguments = parser("tests.bench.products", __doc__, 8, 1)
    args = arguments.parse_args()
    torch.set_num_threads(1)

    chosen = Random(0).sample(list(shapes()), args.layers)
    spent: dict[tuple[str, str], list[float]] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for seed, (pair, kinds) in enumerate(PAIRS.items()):
            generator = torch.Generator().manual_seed(seed)
            for role, kind in zip(("content", "style"), kinds):
                tensors = {
                    f"{layer}.{part}": (torch.randn(shape, generator=generator) * 0.1).half()
                    for layer, out, in_ in chosen
                    for part, shape in kind(out, in_, args.rank).items()
                }
                save_file(tensors, folder / f"{pair} {role}.safetensors")
        for _ in range(args.rounds + 1):
            for pair in PAIRS:
                files = FilePair(*(folder / f"{pair} {role}.safetensors" for role in ("content", "style")), REQUEST)
                saving = Saving(folder / "out.safetensors", size=KEPT, overwrite=True)
                for name, work in (
                    ("inspect", lambda files=files: inspect_files(files)),
                    ("fuse", lambda files=files, saving=saving: fuse_files(files, saving)),
                ):
                    spent.setdefault((name, pair), []).append(timed(work)[0])

    print(f"{args.layers} layers, rank {args.rank**2}, 1 thread, median of {args.rounds} rounds")
    for name in ("inspect", "fuse"):
        usual, product = (median(spent[name, pair][1:]) for pair in PAIRS)
        print(f"{name}: {usual:.2f} s plain, {product:.2f} s LoHa x LoKr, ratio: {product / usual:.2f}")


if __name__ == "__main__":
    main()
