"""ERNIE-Image, which has no names but its own."""

from __future__ import annotations

from ...layers.block import Block
from .tables import QKV, Table, family

_BLOCK = (
    *(f"self_attention.{name}" for name in (*QKV, "to_out.0")),
    *(f"mlp.{name}" for name in ("gate_proj", "up_proj", "linear_fc2")),
)
_ENDS = (
    *("x_embedder.proj", "text_proj", "time_embedding.linear_1", "time_embedding.linear_2"),
    *("adaLN_modulation.1", "final_norm.linear", "final_linear"),
)
_NAMES = (*(f"layers.{{}}.{name}" for name in _BLOCK), *_ENDS)

FAMILY = family(
    "ERNIE-Image",
    {"ss_base_model_version": "ernie_image"},
    Table({name: name for name in _NAMES}),
    blocks=(Block("in"), *(Block("single", number) for number in range(36)), Block("out")),
    own=lambda evidence: evidence.has(r"unet_layers_\d+_(?:self_attention_to_|mlp_(?:gate_proj|up_proj|linear_fc2)$)"),
    readers={"kohya": "Forge Neo and ComfyUI, not by diffusers"},
)
