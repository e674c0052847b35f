"""Lumina 2, whose keys and values are shared by three heads."""

from __future__ import annotations

from fractions import Fraction

from ...layers.block import Block
from .evidence import Evidence
from .tables import QKV, Table, family, slices, within

_BLOCK = {
    "attention.qkv": slices("attn", QKV),
    "attention.out": "attn.to_out.0",
    **{f"feed_forward.w{number}": f"feed_forward.linear_{number}" for number in (1, 2, 3)},
    "adaLN_modulation.1": "norm1.linear",
}
_ENDS = {
    "x_embedder": "x_embedder",
    "cap_embedder.1": "time_caption_embed.caption_embedder.1",
    "t_embedder.mlp.0": "time_caption_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_caption_embed.timestep_embedder.linear_2",
    "final_layer.adaLN_modulation.1": "norm_out.linear_1",
    "final_layer.linear": "norm_out.linear_2",
}
_PARTS = ("layers", "noise_refiner", "context_refiner")
_QKV = (r"attention_qkv$", 5 / 3)


def _shows(evidence: Evidence) -> bool:
    own = (
        r"(?:layers|refiner)_\d+_(?:attn_to_(?:[qkv]|out_0)|feed_forward_linear_[123]|adaLN_modulation_1|norm1_linear)$"
    )
    return evidence.has(own) or evidence.is_tall(*_QKV)


def _is_another(evidence: Evidence) -> bool:
    return evidence.contradicts(*_QKV) or evidence.highest(r"unet_layers_(\d+)_") >= 26


FAMILY = family(
    "Lumina 2",
    {"ss_base_model_version": "lumina2"},
    Table(
        {name: ours for part in _PARTS for name, ours in within(part, part, _BLOCK).items()} | _ENDS,
        heights={f"{part}.{{}}.attention.qkv": (Fraction(1), Fraction(1, 3), Fraction(1, 3)) for part in _PARTS},
    ),
    blocks=(Block("in"), *(Block("single", number) for number in range(26)), Block("out")),
    own=_shows,
    excluded=_is_another,
    readers={
        "comfyui": "Forge Neo and ComfyUI, and by diffusers but for layers before and behind the blocks",
        "kohya": "Forge Neo and ComfyUI, not by diffusers",
        "diffusers": "diffusers alone",
    },
)
