"""Z-Image."""

from __future__ import annotations

from ...layers.block import Block
from .evidence import Evidence
from .tables import QKV, Table, family, slices, within

_BLOCK = {
    "attention.qkv": slices("attention", QKV),
    "attention.out": "attention.to_out.0",
    **{f"feed_forward.w{number}": f"feed_forward.w{number}" for number in (1, 2, 3)},
    "adaLN_modulation.0": "adaLN_modulation.0",
}
_ENDS = {
    "x_embedder": "all_x_embedder.2-1",
    "final_layer.linear": "all_final_layer.2-1.linear",
    "final_layer.adaLN_modulation.1": "all_final_layer.2-1.adaLN_modulation.1",
    "cap_embedder.1": "cap_embedder.1",
    "t_embedder.mlp.0": "t_embedder.mlp.0",
    "t_embedder.mlp.2": "t_embedder.mlp.2",
}
_SIZES = ((r"attention_qkv$", 3), (r"feed_forward_w[13]$", 8 / 3), (r"feed_forward_w2$", 3 / 8))


def _shows(evidence: Evidence) -> bool:
    if evidence.has(r"attention_to_(?:[qkv]|out_0)$|blocks?_\d+_adaLN_modulation_0$|layers_\d+_adaLN_modulation_0$"):
        return True
    return evidence.highest(r"unet_layers_(\d+)_") >= 26 or any(evidence.is_tall(*size) for size in _SIZES)


FAMILY = family(
    "Z-Image",
    {"ss_base_model_version": "zimage"},
    Table(
        {
            **within("layers", "layers", _BLOCK),
            **within("noise_refiner", "noise_refiner", _BLOCK),
            **within("context_refiner", "context_refiner", _BLOCK),
            **_ENDS,
        }
    ),
    blocks=(Block("in"), *(Block("single", number) for number in range(30)), Block("out")),
    own=_shows,
    excluded=lambda evidence: any(evidence.contradicts(*size) for size in _SIZES[:1]),
    usual="diffusers",
    readers={
        "kohya": "Forge Neo and ComfyUI, and by diffusers but for layers before and behind the blocks",
        "comfyui": "Forge Neo and ComfyUI, not by diffusers",
    },
)
