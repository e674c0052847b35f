"""Times inspecting a pair of SDXL LoRA files against fusing them into a third, in one run."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from lib_nplora.files import write_lora
from lib_nplora.jobs.pair import FilePair, Saving, fuse_files, inspect_files
from lib_nplora.request.request import FusionRequest, Source

from .__main__ import timed
from .arguments import parser
from .sdxl import random_lora


def main() -> None:
    arguments = parser("tests.bench.inspecting", __doc__, 64, 3)
    args = arguments.parse_args()
    torch.set_num_threads(1)

    request = FusionRequest.of((Source("content"),), (Source("style"),))
    with TemporaryDirectory() as folder:
        content, style, out = (Path(folder) / f"{name}.safetensors" for name in ("content", "style", "out"))
        for seed, path in enumerate((content, style)):
            deltas = random_lora(path.stem, args.rank, seed, args.layers).deltas
            write_lora(path, deltas.items(), "fp16", None, {})
        pair = FilePair(content, style, request)
        rounds = [
            (timed(lambda: fuse_files(pair, Saving(out, overwrite=True)))[0], timed(lambda: inspect_files(pair))[0])
            for _ in range(args.rounds + 1)
        ][1:]
    fuse, inspect = (median(times) for times in zip(*rounds))
    print(f"{args.layers} layers, rank {args.rank}, 1 thread, median of {args.rounds} rounds")
    print(f"fuse: {fuse:.2f} s")
    print(f"inspect: {inspect:.2f} s")
    print(f"ratio: {inspect / fuse:.2f}")


if __name__ == "__main__":
    main()
