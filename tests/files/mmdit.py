"""Small transformers of Flux and SD 3, and the names of their layers."""

from __future__ import annotations

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor

FUSED_FLUX = {
    "double_blocks.{}.img_attn.qkv": "transformer_blocks.{}.attn.to_q to_k to_v",
    "double_blocks.{}.txt_attn.qkv": "transformer_blocks.{}.attn.add_q_proj add_k_proj add_v_proj",
    "double_blocks.{}.img_attn.proj": "transformer_blocks.{}.attn.to_out.0",
    "double_blocks.{}.txt_attn.proj": "transformer_blocks.{}.attn.to_add_out",
    "double_blocks.{}.img_mlp.0": "transformer_blocks.{}.ff.net.0.proj",
    "double_blocks.{}.txt_mlp.2": "transformer_blocks.{}.ff_context.net.2",
    "double_blocks.{}.img_mod.lin": "transformer_blocks.{}.norm1.linear",
    "single_blocks.{}.linear1": "single_transformer_blocks.{}.attn.to_q to_k to_v ..proj_mlp",
    "single_blocks.{}.linear2": "single_transformer_blocks.{}.proj_out",
    "single_blocks.{}.modulation.lin": "single_transformer_blocks.{}.norm.linear",
}
FUSED_FLUX_ENDS = {
    "img_in": "x_embedder",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
FUSED_SD3 = {
    "joint_blocks.{}.x_block.attn.qkv": "transformer_blocks.{}.attn.to_q to_k to_v",
    "joint_blocks.{}.context_block.attn.qkv": "transformer_blocks.{}.attn.add_q_proj add_k_proj add_v_proj",
    "joint_blocks.{}.x_block.attn.proj": "transformer_blocks.{}.attn.to_out.0",
    "joint_blocks.{}.x_block.mlp.fc1": "transformer_blocks.{}.ff.net.0.proj",
    "joint_blocks.{}.x_block.adaLN_modulation.1": "transformer_blocks.{}.norm1.linear",
    "joint_blocks.{}.context_block.adaLN_modulation.1": "transformer_blocks.{}.norm1_context.linear",
}
FUSED_SD3_ENDS = {
    "context_embedder": "context_embedder",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
"""Layer as its makers call it -> the layers of diffusers that make it up. A name without dots is beside the first."""

SWAPPED = ("final_layer.adaLN_modulation.1", "joint_blocks.1.context_block.adaLN_modulation.1")
"""Layers whose two halves diffusers has the other way round."""


def layers_of(model: str) -> dict[str, list[str]]:
    table, ends = (FUSED_FLUX, FUSED_FLUX_ENDS) if model == "flux" else (FUSED_SD3, FUSED_SD3_ENDS)
    pairs = [(theirs.format(i), ours.format(i)) for theirs, ours in table.items() for i in range(2)]
    found = {}
    for theirs, ours in [*pairs, *ends.items()]:
        first, *others = ours.split()
        parent = first.rpartition(".")[0]
        beside = [f"{parent.rpartition('.')[0]}.{o[2:]}" if o.startswith("..") else f"{parent}.{o}" for o in others]
        found[theirs] = [first, *beside]
    return found


def pipeline(model: str) -> FluxPipeline | StableDiffusion3Pipeline:
    """Nothing but a transformer of two blocks of each kind."""
    torch.manual_seed(0)
    shape = {"in_channels": 4, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2}
    shape |= {"joint_attention_dim": 24, "pooled_projection_dim": 20}
    if model == "flux":
        transformer = FluxTransformer2DModel(
            **shape, patch_size=1, num_single_layers=2, guidance_embeds=False, axes_dims_rope=(4, 4, 8)
        )
        parts = ("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
        return FluxPipeline(transformer=transformer, **dict.fromkeys(parts))
    transformer = SD3Transformer2DModel(**shape, sample_size=8, caption_projection_dim=32, pos_embed_max_size=8)
    parts = (
        "scheduler",
        "vae",
        "text_encoder",
        "tokenizer",
        "text_encoder_2",
        "tokenizer_2",
        "text_encoder_3",
        "tokenizer_3",
    )
    return StableDiffusion3Pipeline(transformer=transformer, **dict.fromkeys(parts))


def factors(out: int, in_: int, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(out, rank, generator=generator), torch.randn(rank, in_, generator=generator)
