"""A pair of LoRAs with the layers of an SDXL UNet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from random import Random

import torch

from lib_nplora.layers.key import ModuleKey
from lib_nplora.layers.weights import LoraWeights
from lib_nplora.maths.lowrank import LowRankDelta

BLOCKS = (
    ("down_blocks_1", 640, 2, 2),
    ("down_blocks_2", 1280, 2, 10),
    ("mid_block", 1280, 1, 10),
    ("up_blocks_0", 1280, 3, 10),
    ("up_blocks_1", 640, 3, 2),
)
"""(block, width, attentions in it, transformer layers in each)."""

TEXT_WIDTH = 2048
"""What the cross-attention reads."""


def shapes() -> Iterator[tuple[str, int, int]]:
    """(name, out, in) of every attention and feed-forward layer: 700 of them."""
    for block, width, attentions, depth in BLOCKS:
        for attention, index in product(range(attentions), range(depth)):
            layers = {
                **dict.fromkeys(("attn1_to_q", "attn1_to_k", "attn1_to_v", "attn1_to_out_0"), (width, width)),
                **dict.fromkeys(("attn2_to_q", "attn2_to_out_0"), (width, width)),
                **dict.fromkeys(("attn2_to_k", "attn2_to_v"), (width, TEXT_WIDTH)),
                "ff_net_0_proj": (8 * width, width),
                "ff_net_2": (width, 4 * width),
            }
            for name, (out, in_) in layers.items():
                yield f"lora_unet_{block}_attentions_{attention}_transformer_blocks_{index}_{name}", out, in_


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


def afresh(lora: LoraWeights) -> LoraWeights:
    """The same LoRA, of which nothing is known yet."""
    return replace(lora, deltas={key: replace(delta) for key, delta in lora.deltas.items()})
