"""The model families that a LoRA can be made for, told apart by its layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A row of the table.

    te_prefix
        How kohya's files of this family call the first text encoder.
    metadata
        How kohya's files, and the WebUI's filter by model, name the family.
    context
        Width of the text embedding that cross-attention reads, of a UNet.
    spelled
        Pattern of names of modules that only files of this family have.
    widths
        Of a transformer's hidden states.
    """

    label: str
    te_prefix: str
    metadata: Mapping[str, str]
    context: int = 0
    spelled: str = ""
    widths: tuple[int, ...] = ()


SD1 = Family("SD 1", "lora_te_", {"ss_base_model_version": "sd_v1", "ss_v2": "False"}, 768)
SD2 = Family("SD 2", "lora_te_", {"ss_base_model_version": "sd_v2", "ss_v2": "True"}, 1024)
SDXL = Family("SDXL", "lora_te1_", {"ss_base_model_version": "sdxl_base_v1-0", "ss_v2": "False"}, 2048)
FLUX = Family(
    "Flux",
    "lora_te1_",
    {"ss_base_model_version": "flux1", "ss_v2": "False"},
    spelled=r"(double|single)_blocks[._]\d|single_transformer_blocks[._]\d|guidance_embedder",
    widths=(3072,),
)
SD3 = Family(
    "SD 3",
    "lora_te1_",
    {"ss_base_model_version": "sd3", "ss_v2": "False"},
    spelled=r"joint_blocks[._]\d|attn2[._]to_[qkv]|pos_embed[._]proj",
    widths=(1536, 2432),
)
_TRANSFORMER = (
    r"lora_te3_|lora_unet_((single_)?transformer_blocks|(x|context)_embedder|time_text_embed|(norm|proj)_out|pos_embed)"
)
UNETS = (SD1, SD2, SDXL)
TRANSFORMERS = (FLUX, SD3)


def detect(widths: Mapping[str, int], spelled: Iterable[str] = ()) -> Family | None:
    """The family of a LoRA, None if nothing tells.

    widths
        Input width of each layer, by canonical name.
    spelled
        The modules' names as the file spells them.
    """
    if any(is_transformer(name) for name in widths):
        names = "\n".join(spelled)
        for family in TRANSFORMERS:
            if re.search(family.spelled, names):
                return family
        inner = {width for name, width in widths.items() if re.search(r"_attn_(add_)?qkv$", name)}
        return next((family for family in TRANSFORMERS if inner and inner <= set(family.widths)), None)
    for name, width in widths.items():
        if re.search(r"_attn2_to_[kv]$", name):
            return next((family for family in UNETS if family.context == width), None)
    unet = [name for name in widths if name.startswith("lora_unet_")]
    has_unet_blocks = any(re.match(r"lora_unet_(down_blocks|mid_block|up_blocks)_", name) for name in unet)
    has_second_encoder = any(name.startswith("lora_te2_") for name in widths)
    return SDXL if has_second_encoder and (has_unet_blocks or not unet) else None


def is_transformer(layer: str) -> bool:
    """Whether only a transformer, as Flux and SD 3 are, has a layer of this canonical name."""
    return bool(re.match(_TRANSFORMER, layer))
