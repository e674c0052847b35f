"""Qwen-Image, which has no names but diffusers'."""

from __future__ import annotations

from ...layers.block import Block
from .evidence import Evidence
from .tables import ADDED_QKV, QKV, Table, family

_BLOCK = (
    *(f"attn.{name}" for name in (*QKV, *ADDED_QKV, "to_out.0", "to_add_out")),
    *(f"{of}_mlp.net.{layer}" for of in ("img", "txt") for layer in ("0.proj", "2")),
    *("img_mod.1", "txt_mod.1"),
)
_ENDS = (
    *("img_in", "txt_in", "norm_out.linear", "proj_out"),
    *(f"time_text_embed.timestep_embedder.linear_{number}" for number in (1, 2)),
)
_NAMES = (*(f"transformer_blocks.{{}}.{name}" for name in _BLOCK), *_ENDS)
_BLOCKS = 60
_OF_OTHERS = 38
"""The most blocks of this name that any other model has: those of Stable Diffusion 3.5."""


def _shows(evidence: Evidence) -> bool:
    blocks = evidence.highest(r"unet_transformer_blocks_(\d+)_")
    return evidence.has(r"blocks_\d+_(?:img|txt)_(?:mlp_net|mod_1)") or blocks >= _OF_OTHERS


FAMILY = family(
    "Qwen-Image",
    {"ss_base_model_version": "qwen_image"},
    Table({name: name for name in _NAMES}),
    blocks=(Block("in"), *(Block("double", number) for number in range(_BLOCKS)), Block("out")),
    own=_shows,
    excluded=lambda evidence: evidence.highest(r"unet_transformer_blocks_(\d+)_") >= _BLOCKS,
)
