"""Krea 2."""

from __future__ import annotations

from ...layers.block import Block
from .tables import Table, family, within

_BLOCK = {
    **{f"attn.w{name}": f"attn.to_{name}" for name in "qkv"},
    "attn.wo": "attn.to_out.0",
    "attn.gate": "attn.to_gate",
    **{f"mlp.{name}": f"ff.{name}" for name in ("gate", "up", "down")},
}
_ENDS = {
    "first": "img_in",
    "tmlp.0": "time_embed.linear_1",
    "tmlp.2": "time_embed.linear_2",
    "tproj.1": "time_mod_proj",
    "txtmlp.1": "txt_in.linear_1",
    "txtmlp.3": "txt_in.linear_2",
    "txtfusion.projector": "text_fusion.projector",
    "last.linear": "final_layer.linear",
}
_FUSION = ("layerwise_blocks", "refiner_blocks")
_OWN = r"attn_w[qkvo]$|txtfusion|text_fusion|attn_to_gate$|blocks_\d+_(?:mlp|ff)_(?:gate|up|down)$"

FAMILY = family(
    "Krea 2",
    {"ss_base_model_version": "krea2"},
    Table(
        {
            **within("blocks", "transformer_blocks", _BLOCK),
            **within(f"txtfusion.{_FUSION[0]}", f"text_fusion.{_FUSION[0]}", _BLOCK),
            **within(f"txtfusion.{_FUSION[1]}", f"text_fusion.{_FUSION[1]}", _BLOCK),
            **_ENDS,
        }
    ),
    blocks=(Block("in"), *(Block("single", number) for number in range(28)), Block("out")),
    own=lambda evidence: evidence.has(_OWN),
    readers={"kohya": "Forge Neo and ComfyUI, not by diffusers"},
)
