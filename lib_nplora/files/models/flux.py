"""Flux.1."""

from __future__ import annotations

from ...layers.block import Block
from ..slot import MLP
from .evidence import Evidence
from .transformers import Blocks, Names, family

_DOUBLE = {
    "img_attn.qkv": "attn.qkv",
    "txt_attn.qkv": "attn.add_qkv",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
}
_SINGLE = {
    "linear1": "qkv_mlp",
    "linear2": "proj_out",
    "modulation.lin": "norm.linear",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}
_ENDS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "final_layer.linear": "proj_out",
}
_XLABS_DOUBLE = {
    "processor_qkv_lora1": ("attn_qkv", None),
    "processor_qkv_lora2": ("attn_add_qkv", None),
    "processor_proj_lora1": ("attn_to_out_0", None),
    "processor_proj_lora2": ("attn_to_add_out", None),
}
_XLABS_SINGLE = {"processor_qkv": ("qkv_mlp", (0, MLP)), "processor_proj": ("proj_out", None)}

_NAMES = Names(
    blocks=(
        Blocks(
            "double_blocks",
            "transformer_blocks",
            _DOUBLE,
            fused={
                "attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
                "attn.add_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
            },
            others=_XLABS_DOUBLE,
        ),
        Blocks(
            "single_blocks",
            "single_transformer_blocks",
            _SINGLE,
            fused={"qkv_mlp": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")},
            others=_XLABS_SINGLE,
        ),
    ),
    singles=_ENDS,
    swapped=frozenset({"final_layer_adaLN_modulation_1"}),
)

_SIZES = (
    (r"single_blocks_\d+_linear1$", 7),
    (r"single_blocks_\d+_linear2$|single_transformer_blocks_\d+_proj_out$", 1 / 5),
    (r"(?:img|txt)_mlp_0$|ff(?:_context)?_net_0_proj$|single_transformer_blocks_\d+_proj_mlp$", 4),
    (r"(?:img|txt)_mlp_2$|ff(?:_context)?_net_2$", 1 / 4),
)
"""Layers whose rows a column tell FLUX.1 from models that have taken over its names."""

_OWN = (
    r"_(?:img|txt)_mod_lin$|single_blocks_\d+_modulation_lin$|_processor_|single_transformer_blocks_\d+_norm_linear$"
    r"|transformer_blocks_\d+_norm1(?:_context)?_linear$|vector_in_in_layer|text_embedder_linear"
)
"""Layers that neither Chroma nor FLUX.2 has. Chroma is of FLUX.1's sizes in all others."""


def _is_another(evidence: Evidence) -> bool:
    return (
        any(evidence.contradicts(words, ratio) for words, ratio in _SIZES)
        or evidence.highest(r"(?:double_blocks|unet_transformer_blocks)_(\d+)_") >= 19
        or evidence.highest(r"single_(?:transformer_)?blocks_(\d+)_") >= 38
    )


FAMILY = family(
    "Flux",
    {"ss_base_model_version": "flux1", "ss_v2": "False"},
    _NAMES,
    own=r"(double|single)_blocks[._]\d|single_transformer_blocks[._]\d|guidance_embedder",
    hidden=(3072,),
    blocks=(
        *(Block("te", 1), Block("te", 3), Block("in"), Block("out")),
        *(Block("double", number) for number in range(19)),
        *(Block("single", number) for number in range(38)),
    ),
    bare=("(?:double|single)_blocks", "(?:img|txt|time|vector|guidance)_in", "final_layer"),
    excluded=_is_another,
    shows=lambda evidence: evidence.has(_OWN),
    readers={
        "kohya": "Forge, Forge Neo and ComfyUI, and by diffusers but for layers before and behind the blocks",
        "comfyui": "Forge, Forge Neo and ComfyUI, not by diffusers",
    },
)
