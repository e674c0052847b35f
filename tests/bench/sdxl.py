"""A pair of LoRAs with the layers of an SDXL UNet."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import torch

from lib_nplora.lowrank import LowRankDelta
from lib_nplora.weights import LoraWeights, ModuleKey

TRANSFORMERS = {640: 10, 1280: 60}
"""Transformer layers of each width."""

TEXT_WIDTH = 2048
"""What the cross-attention reads."""


def shapes() -> Iterator[tuple[str, int, int]]:
    """(name, out, in) of every attention and feed-forward layer: 700 of them."""
    for width, count in TRANSFORMERS.items():
        for index in range(count):
            layers = {
                **dict.fromkeys(("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out"), (width, width)),
                **dict.fromkeys(("attn2.to_q", "attn2.to_out"), (width, width)),
                **dict.fromkeys(("attn2.to_k", "attn2.to_v"), (width, TEXT_WIDTH)),
                "ff.net.0.proj": (8 * width, width),
                "ff.net.2": (width, 4 * width),
            }
            for name, (out, in_) in layers.items():
                yield f"{width}.{index}.{name}", out, in_


def random_lora(name: str, rank: int, seed: int, layers: int) -> LoraWeights:
    """A LoRA of so many layers, the same ones for every `seed`, picked at random from all of them."""
    generator = torch.Generator().manual_seed(seed)
    chosen = Random(0).sample(list(shapes()), layers)
    deltas = {
        ModuleKey(layer, "unet"): LowRankDelta.from_factors(
            torch.randn(out, rank, generator=generator) * 0.01,
            torch.randn(rank, in_, generator=generator) / in_**0.5,
        )
        for layer, out, in_ in chosen
    }
    return LoraWeights(name, f"{name}-{rank}-{seed}", deltas)
