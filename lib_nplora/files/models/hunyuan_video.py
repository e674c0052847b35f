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

FAMILY = family(
    "HunyuanVideo",
    {"ss_base_model_version": "hunyuan_video"},
    Table(
        {
            **within("double_blocks", "transformer_blocks", _DOUBLE),
            **within("single_blocks", "single_transformer_blocks", _SINGLE),
        },
        heights={"single_blocks.{}.linear1": (Fraction(1), Fraction(1), Fraction(1), Fraction(4))},
    ),
    blocks=(
        *(Block("double", number) for number in range(20)),
        *(Block("single", number) for number in range(40)),
    ),
    own=lambda evidence: evidence.has(r"(?:img|txt)_(?:mlp_fc[12]|mod_linear)$|single_blocks_\d+_modulation_linear$"),
    excluded=lambda evidence: evidence.contradicts(r"single_blocks_\d+_linear1$", 7),
)
