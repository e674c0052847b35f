"""HunyuanVideo. Its names are FLUX.1's but for an underscore here and there."""

from __future__ import annotations

from fractions import Fraction

from ...layers.block import Block
from .tables import ADDED_QKV, QKV, Table, family, slices, within

_DOUBLE = {
    "img_attn_qkv": slices("attn", QKV),
    "txt_attn_qkv": slices("attn", ADDED_QKV),
    "img_attn_proj": "attn.to_out.0",
    "txt_attn_proj": "attn.to_add_out",
    "img_mlp.fc1": "ff.net.0.proj",
    "img_mlp.fc2": "ff.net.2",
    "txt_mlp.fc1": "ff_context.net.0.proj",
    "txt_mlp.fc2": "ff_context.net.2",
    "img_mod.linear": "norm1.linear",
    "txt_mod.linear": "norm1_context.linear",
}
_SINGLE = {
    "linear1": (*slices("attn", QKV), "proj_mlp"),
    "linear2": "proj_out",
    "modulation.linear": "norm.linear",
}

_REFINER = {
    "self_attn_qkv": slices("attn", QKV),
    "self_attn_proj": "attn.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "adaLN_modulation.1": "norm_out.linear",
}
_TEXT = "context_embedder"
_ENDS = {
    "img_in.proj": "x_embedder.proj",
    "txt_in.input_embedder": f"{_TEXT}.proj_in",
    "txt_in.t_embedder.mlp.0": f"{_TEXT}.time_text_embed.timestep_embedder.linear_1",
    "txt_in.t_embedder.mlp.2": f"{_TEXT}.time_text_embed.timestep_embedder.linear_2",
    "txt_in.c_embedder.linear_1": f"{_TEXT}.time_text_embed.text_embedder.linear_1",
    "txt_in.c_embedder.linear_2": f"{_TEXT}.time_text_embed.text_embedder.linear_2",
    "time_in.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "time_in.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "guidance_in.mlp.0": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.mlp.2": "time_text_embed.guidance_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
_OWN = (
    r"(?:img|txt)_(?:mlp_fc[12]|mod_linear)$|single_blocks_\d+_modulation_linear$|individual_token_refiner"
    r"|unet_context_embedder_(?:token_refiner|proj_in|time_text_embed)|unet_(?:time|guidance)_in_mlp_[02]$"
)

FAMILY = family(
    "HunyuanVideo",
    {"ss_base_model_version": "hunyuan_video"},
    Table(
        {
            **within("double_blocks", "transformer_blocks", _DOUBLE),
            **within("single_blocks", "single_transformer_blocks", _SINGLE),
            **within("txt_in.individual_token_refiner.blocks", f"{_TEXT}.token_refiner.refiner_blocks", _REFINER),
            **_ENDS,
        },
        swapped=frozenset({"final_layer.adaLN_modulation.1"}),
        heights={"single_blocks.{}.linear1": (Fraction(1), Fraction(1), Fraction(1), Fraction(4))},
    ),
    blocks=(
        *(Block("in"), Block("out")),
        *(Block("double", number) for number in range(20)),
        *(Block("single", number) for number in range(40)),
    ),
    own=lambda evidence: evidence.has(_OWN),
    excluded=lambda evidence: evidence.contradicts(r"single_blocks_\d+_linear1$", 7),
    readers={"kohya": "no host that is known here", "diffusers": "diffusers alone"},
)
