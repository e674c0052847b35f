"""Wan 2.1 and 2.2."""

from __future__ import annotations

from ...layers.block import Block
from .tables import Table, family, within

_ATTENTION = (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
_BLOCK = {
    **{f"self_attn.{theirs}": f"attn1.{ours}" for theirs, ours in _ATTENTION},
    **{f"cross_attn.{theirs}": f"attn2.{ours}" for theirs, ours in _ATTENTION},
    "cross_attn.k_img": "attn2.add_k_proj",
    "cross_attn.v_img": "attn2.add_v_proj",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}
_ENDS = {
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "head.head": "proj_out",
}
_OWN = r"unet_blocks_\d+_(?:(?:self|cross)_attn_(?:[qkvo]|[kv]_img)|ffn_[02]|attn[12]_to_(?:[qkv]|out_0)|ffn_net_\d)"

FAMILY = family(
    "Wan",
    {"ss_base_model_version": "wan"},
    Table({**within("blocks", "blocks", _BLOCK), **_ENDS}),
    blocks=(Block("in"), *(Block("single", number) for number in range(40)), Block("out")),
    own=lambda evidence: evidence.has(_OWN),
    readers={
        "kohya": "Forge Neo and ComfyUI, and by diffusers but for layers before and behind the blocks",
        "diffusers": "diffusers alone",
    },
)
