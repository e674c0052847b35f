"""Anima, a Cosmos Predict 2 with an adapter for its texts."""

from __future__ import annotations

from ...layers.block import Block
from .tables import Table, family, within

_ATTENTION = (("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v"), ("output_proj", "to_out.0"))
_PARTS = (("self_attn", "norm1"), ("cross_attn", "norm2"), ("mlp", "norm3"))
_BLOCK = {
    **{f"self_attn.{theirs}": f"attn1.{ours}" for theirs, ours in _ATTENTION},
    **{f"cross_attn.{theirs}": f"attn2.{ours}" for theirs, ours in _ATTENTION},
    "mlp.layer1": "ff.net.0.proj",
    "mlp.layer2": "ff.net.2",
    **{f"adaln_modulation_{of}.{number}": f"{norm}.linear_{number}" for of, norm in _PARTS for number in (1, 2)},
}
_ENDS = {
    "x_embedder.proj.1": "patch_embed.proj",
    "t_embedder.1.linear_1": "time_embed.t_embedder.linear_1",
    "t_embedder.1.linear_2": "time_embed.t_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaln_modulation.1": "norm_out.linear_1",
    "final_layer.adaln_modulation.2": "norm_out.linear_2",
}
_OWN = (
    r"blocks_\d+_(?:(?:self|cross)_attn_(?:[qkv]|output)_proj|mlp_layer[12]|adaln_modulation_(?:self|cross|mlp))"
    r"|norm[123]_linear_[12]$"
)

FAMILY = family(
    "Anima",
    {"ss_base_model_version": "anima"},
    Table({**within("blocks", "transformer_blocks", _BLOCK), **_ENDS}),
    blocks=(Block("te", 1), Block("in"), *(Block("single", number) for number in range(28)), Block("out")),
    own=lambda evidence: evidence.has(_OWN),
    readers={"kohya": "Forge Neo and ComfyUI, not by diffusers", "diffusers": "diffusers alone"},
)
