"""python -m tests.bench.zip_memory: the GPU memory that `zip` needs for SDXL, computed on tensors without values.

A UNet of SDXL's size in bfloat16, two LoRAs of rank 64 on attention, 1024 x 1024 pixels, a batch of one. Added up are
weights, LoRAs, mergers with their gradients and Adam's moments, what gradient checkpointing keeps between blocks, what
is kept outside of them, and the block that keeps the most while it is calculated again. The memory of a single
operation, of CUDA itself and of what the allocator wastes is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from lib_nplora.pipelines.beside import SIDES, Beside, Merger, Part

RANK = 64
PIXELS = 1024
ENCODERS = 2 * (123_060_480 + 694_659_840)
"""Bytes of SDXL's two text encoders in bfloat16, which are on the GPU while the pictures are drawn."""


class Attention(torch.autograd.Function):
    """Keeps what a fused kernel keeps, and calculates nothing."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.empty_like, ctx.saved_tensors[:3]))


def unet() -> UNet2DConditionModel:
    with torch.device("meta"):
        made = UNet2DConditionModel(
            sample_size=128, block_out_channels=(320, 640, 1280), cross_attention_dim=2048,
            attention_head_dim=(5, 10, 20),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
            transformer_layers_per_block=(1, 2, 10), addition_embed_type="text_time", addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )  # fmt: skip
    return made.to(torch.bfloat16).requires_grad_(False)


def size(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@contextmanager
def kept(found: dict[int, Tensor], besides: set[int]) -> Iterator[None]:
    """Within it, what the backward pass needs is found, once each; `besides` are storages that are there anyway."""

    def pack(tensor: Tensor) -> Tensor:
        where = tensor.untyped_storage()._cdata
        if where not in besides:
            found[where] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


def main() -> None:
    model = unet()
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and ".attn" in name}
    mergers = {layer: Merger.ones(layer.in_features, layer.weight) for layer in layers.values()}
    parts = {
        layer: [
            Part(
                side,
                torch.empty(layer.out_features, RANK, device="meta", dtype=torch.bfloat16),
                torch.empty(RANK, layer.in_features, device="meta"),
                mergers[layer].of(side),
            )
            for side in SIDES
        ]
        for layer in layers.values()
    }
    there = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    between: list[Tensor] = []
    blocks: list[int] = []

    def checkpointed(block: Callable[..., Any], *args: Any) -> Any:
        between.extend(value for value in args if isinstance(value, Tensor) and value.requires_grad)
        found: dict[int, Tensor] = {}
        with kept(found, there):
            given = block(*args)
        blocks.append(size(found.values()))
        return given

    model.enable_gradient_checkpointing(lambda block, *args: checkpointed(block.__call__, *args))
    usual, F.scaled_dot_product_attention = (
        F.scaled_dot_product_attention,
        lambda q, k, v, **_: Attention.apply(q, k, v),
    )
    outside: dict[int, Tensor] = {}
    given = {"device": "meta", "dtype": torch.bfloat16}
    try:
        with Beside(parts).running(), kept(outside, there):
            model(
                torch.empty(1, 4, PIXELS // 8, PIXELS // 8, **given),
                torch.empty(1, device="meta"),
                torch.empty(1, 77, 2048, **given),
                added_cond_kwargs={
                    "text_embeds": torch.empty(1, 1280, **given),
                    "time_ids": torch.empty(1, 6, **given),
                },
            )
    finally:
        F.scaled_dot_product_attention = usual
    numbers = [merger.of(side) for merger in mergers.values() for side in SIDES]
    once = {tensor.untyped_storage()._cdata: tensor for tensor in (*between, *outside.values())}
    rows = {
        "weights of the UNet": size(model.parameters()),
        "two LoRAs": size(tensor for held in parts.values() for part in held for tensor in (part.up, part.down)),
        f"{sum(map(Tensor.numel, numbers))} mergers, gradients, moments": 4 * size(numbers),
        "kept between and outside of blocks": size(once.values()),
        "the largest block": max(blocks),
    }
    for name, count in rows.items():
        print(f"{name}: {count / 2**30:.2f} GiB")
    print(f"training: {sum(rows.values()) / 2**30:.2f} GiB; without checkpointing {sum(blocks) / 2**30:.1f} GiB more")
    drawing = rows["weights of the UNet"] + rows["two LoRAs"] + ENCODERS
    print(f"drawing: {drawing / 2**30:.2f} GiB, text encoders included")


if __name__ == "__main__":
    main()
