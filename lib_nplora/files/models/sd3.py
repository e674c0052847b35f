"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from ...layers.block import Block
from .transformers import Blocks, Names, family

_JOINT = {
    "x_block.attn.qkv": "attn.qkv",
    "context_block.attn.qkv": "attn.add_qkv",
    "x_block.attn2.qkv": "attn2.qkv",
    "x_block.attn.proj": "attn.to_out.0",
    "context_block.attn.proj": "attn.to_add_out",
    "x_block.attn2.proj": "attn2.to_out.0",
    "x_block.mlp.fc1": "ff.net.0.proj",
    "x_block.mlp.fc2": "ff.net.2",
    "context_block.mlp.fc1": "ff_context.net.0.proj",
    "context_block.mlp.fc2": "ff_context.net.2",
    "x_block.adaLN_modulation.1": "norm1.linear",
    "context_block.adaLN_modulation.1": "norm1_context.linear",
    "x_block.attn.ln_q": "attn.norm_q",
    "x_block.attn.ln_k": "attn.norm_k",
    "context_block.attn.ln_q": "attn.norm_added_q",
    "context_block.attn.ln_k": "attn.norm_added_k",
    "x_block.attn2.ln_q": "attn2.norm_q",
    "x_block.attn2.ln_k": "attn2.norm_k",
}
_ENDS = {
    "x_embedder.proj": "pos_embed.proj",
    "context_embedder": "context_embedder",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "final_layer.linear": "proj_out",
}

_NAMES = Names(
    blocks=(
        Blocks(
            "joint_blocks",
            "transformer_blocks",
            _JOINT,
            fused={
                "attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
                "attn.add_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
                "attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
            },
        ),
    ),
    singles=_ENDS,
    # The second only in the last block, twice as high as wide.
    swapped=frozenset({"final_layer_adaLN_modulation_1", "context_block_adaLN_modulation_1"}),
)

FAMILY = family(
    "SD 3",
    {"ss_base_model_version": "sd3", "ss_v2": "False"},
    _NAMES,
    own=r"joint_blocks[._]\d|attn2[._]to_[qkv]|pos_embed[._]proj",
    hidden=(1536, 2432),
    blocks=(
        *(Block("te", number) for number in (1, 2, 3)),
        *(Block("in"), Block("out")),
        *(Block("double", number) for number in range(38)),
    ),
    bare=("joint_blocks", "final_layer", "[ty]_embedder"),
    excluded=lambda evidence: evidence.has("attn1_to_"),
    readers={
        "kohya": "Forge and ComfyUI, not by diffusers and not by A1111",
        "comfyui": "Forge and ComfyUI, not by diffusers and not by A1111",
        "diffusers": "diffusers and ComfyUI, by A1111 for the attention of the picture alone, and not by Forge",
    },
)
