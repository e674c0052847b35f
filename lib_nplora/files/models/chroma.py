"""Chroma: FLUX.1's blocks, modulated by one small network for all."""

from __future__ import annotations

from fractions import Fraction

from ...layers.block import Block
from .evidence import Evidence
from .tables import ADDED_QKV, QKV, Table, family, slices, within

_DOUBLE = {
    "img_attn.qkv": slices("attn", QKV),
    "txt_attn.qkv": slices("attn", ADDED_QKV),
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
_SINGLE = {"linear1": (*slices("attn", QKV), "proj_mlp"), "linear2": "proj_out"}
_ENDS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
    "distilled_guidance_layer.in_proj": "distilled_guidance_layer.in_proj",
    "distilled_guidance_layer.out_proj": "distilled_guidance_layer.out_proj",
    "distilled_guidance_layer.layers.{}.in_layer": "distilled_guidance_layer.layers.{}.linear_1",
    "distilled_guidance_layer.layers.{}.out_layer": "distilled_guidance_layer.layers.{}.linear_2",
}

_TABLE = Table(
    {
        **within("double_blocks", "transformer_blocks", _DOUBLE),
        **within("single_blocks", "single_transformer_blocks", _SINGLE),
        **_ENDS,
    },
    heights={"single_blocks.{}.linear1": (Fraction(1), Fraction(1), Fraction(1), Fraction(4))},
)


def _is_another(evidence: Evidence) -> bool:
    """FLUX.2 has other sizes, Qwen-Image more blocks."""
    return (
        evidence.contradicts(r"single_blocks_\d+_linear1$", 7)
        or evidence.contradicts(r"(?:img|txt)_mlp_0$|proj_mlp$|ff(?:_context)?_net_0_proj$", 4)
        or evidence.highest(r"(?:double_blocks|unet_transformer_blocks)_(\d+)_") >= 19
        or evidence.highest(r"single_(?:transformer_)?blocks_(\d+)_") >= 38
    )


FAMILY = family(
    "Chroma",
    {"ss_base_model_version": "chroma"},
    _TABLE,
    blocks=(
        *(Block("te", 3), Block("in"), Block("out")),
        *(Block("double", number) for number in range(19)),
        *(Block("single", number) for number in range(38)),
    ),
    own=lambda evidence: evidence.has("distilled_guidance_layer"),
    excluded=_is_another,
    usual="kohya",
    readers={
        "kohya": "Forge, Forge Neo and ComfyUI, and by diffusers but for the distilled guidance layer",
        "comfyui": "Forge, Forge Neo and ComfyUI, not by diffusers",
        "diffusers": "diffusers, and by Forge Neo but for the distilled guidance layer",
    },
    t5="lora_te1_",
)
