"""The names that the original Stable Diffusion code gives a UNet's layers are all read."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)

from lib_nplora.files import names


def layer(module: str) -> str | None:
    slot = names.slot_of(module)
    return slot and slot.layer


RESNET = ("in_layers_2", "out_layers_3", "emb_layers_1", "skip_connection")
ATTENTION = tuple(f"{attn}_{to}" for attn in ("attn1", "attn2") for to in ("to_q", "to_k", "to_v", "to_out_0"))


def sdxl_sgm_names() -> set[str]:
    """Every layer of the SDXL UNet in sgm naming, written down from its structure; some skips do not exist."""

    def attention(block: str, depth: int) -> set[str]:
        tails = (*ATTENTION, "ff_net_0_proj", "ff_net_2")
        inner = {f"{block}_transformer_blocks_{i}_{tail}" for i in range(depth) for tail in tails}
        return {f"{block}_proj_in", f"{block}_proj_out", *inner}

    found = {"input_blocks_0_0", "out_2", "time_embed_0", "time_embed_2", "label_emb_0_0", "label_emb_0_2"}
    found |= {"input_blocks_3_0_op", "input_blocks_6_0_op", "output_blocks_2_2_conv", "output_blocks_5_2_conv"}
    resnets = [f"input_blocks_{i}_0" for i in (1, 2, 4, 5, 7, 8)] + [f"output_blocks_{i}_0" for i in range(9)]
    for block in [*resnets, "middle_block_0", "middle_block_2"]:
        with_skip = block.startswith("output") or block in ("input_blocks_4_0", "input_blocks_7_0")
        found |= {f"{block}_{part}" for part in (RESNET if with_skip else RESNET[:3])}
    for block, depth in (
        *((f"input_blocks_{i}_1", 2) for i in (4, 5)),
        *((f"input_blocks_{i}_1", 10) for i in (7, 8)),
        ("middle_block_1", 10),
        *((f"output_blocks_{i}_1", 10) for i in (0, 1, 2)),
        *((f"output_blocks_{i}_1", 2) for i in (3, 4, 5)),
    ):
        found |= attention(block, depth)
    return found


def test_sgm_names_are_exactly_the_layers_of_the_sdxl_unet() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            cross_attention_dim=2048,
            use_linear_projection=True,
            attention_head_dim=(5, 10, 20),
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
    layers = {
        f"lora_unet_{name.replace('.', '_')}"
        for name, layer in unet.named_modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    }
    assert {layer(f"lora_unet_{name}") for name in sdxl_sgm_names()} == layers


def test_sgm_names_agree_with_diffusers_own_conversion() -> None:
    spelled = {f"lora_unet_{name}" for name in sdxl_sgm_names()}
    for name in spelled:
        state = {f"{name}.lora_{side}.weight": torch.zeros(1) for side in ("up", "down")}
        config = SimpleNamespace(layers_per_block=2)
        state = _maybe_map_sgm_blocks_to_diffusers(copy.copy(state), config)
        converted, _ = _convert_non_diffusers_lora_to_diffusers(state)
        found = {layer(split[0]) for split in map(names.split, converted) if split}
        assert found == {layer(name)}, converted
