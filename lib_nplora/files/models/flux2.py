"""FLUX.2: Klein 4B, Klein 9B and dev. Named as FLUX.1 is, but its MLPs are gated, and three times as wide."""

from __future__ import annotations

from ...layers.block import Block
from .evidence import Evidence
from .tables import ADDED_QKV, QKV, Table, family, slices, within

_DOUBLE = {
    "img_attn.qkv": slices("attn", QKV),
    "txt_attn.qkv": slices("attn", ADDED_QKV),
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.linear_in",
    "img_mlp.2": "ff.linear_out",
    "txt_mlp.0": "ff_context.linear_in",
    "txt_mlp.2": "ff_context.linear_out",
}
_SINGLE = {"linear1": "attn.to_qkv_mlp_proj", "linear2": "attn.to_out"}
_ENDS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
}
_SIZES = (
    (r"single_blocks_\d+_linear1$|to_qkv_mlp_proj$", 9),
    (r"single_blocks_\d+_linear2$|single_transformer_blocks_\d+_attn_to_out$", 1 / 4),
    (r"(?:img|txt)_mlp_0$|linear_in$", 6),
    (r"(?:img|txt)_mlp_2$|linear_out$", 1 / 3),
)
_WIDTHS = (4096, 6144)
"""Those of Klein 9B and of dev; 3072 is FLUX.1's, too."""


def _shows(evidence: Evidence) -> bool:
    if evidence.has("to_qkv_mlp_proj|ff(?:_context)?_linear_(?:in|out)|stream_modulation|time_guidance_embed"):
        return True
    attention = list(evidence.sizes_of(r"double_blocks_\d+_(?:img|txt)_attn_(?:qkv|proj)$"))
    wide = bool(attention) and all(columns in _WIDTHS for _, columns in attention)
    return wide or any(evidence.is_tall(words, ratio) for words, ratio in _SIZES)


def _is_another(evidence: Evidence) -> bool:
    return (
        any(evidence.contradicts(words, ratio) for words, ratio in _SIZES)
        or evidence.has(r"vector_in|_(?:img|txt)_mod_lin|blocks_\d+_modulation_lin|proj_mlp")
        or evidence.highest(r"(?:double_blocks|unet_transformer_blocks)_(\d+)_") >= 8
        or evidence.highest(r"single_(?:transformer_)?blocks_(\d+)_") >= 48
    )


FAMILY = family(
    "FLUX.2",
    {"ss_base_model_version": "flux2"},
    Table(
        {
            **within("double_blocks", "transformer_blocks", _DOUBLE),
            **within("single_blocks", "single_transformer_blocks", _SINGLE),
            **_ENDS,
        },
        swapped=frozenset({"final_layer.adaLN_modulation.1"}),
    ),
    blocks=(
        *(Block("in"), Block("out")),
        *(Block("double", number) for number in range(8)),
        *(Block("single", number) for number in range(48)),
    ),
    own=_shows,
    excluded=_is_another,
    readers={
        "comfyui": "Forge Neo and ComfyUI, and by diffusers but for layers before and behind the blocks",
        "kohya": "Forge Neo and ComfyUI, and by diffusers but for layers before and behind the blocks",
        "diffusers": "diffusers, and by Forge Neo but for time and modulation",
    },
)
