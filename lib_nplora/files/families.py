"""The model families that a LoRA can be made for, told apart by the shapes of its layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A row of the table.

    context
        Width of the text embedding that cross-attention reads.
    te_prefix
        How kohya's files of this family call the first text encoder.
    metadata
        How kohya's files, and the WebUI's filter by model, name the family.
    """

    label: str
    context: int
    te_prefix: str
    metadata: Mapping[str, str]


SD1 = Family("SD 1", 768, "lora_te_", {"ss_base_model_version": "sd_v1", "ss_v2": "False"})
SD2 = Family("SD 2", 1024, "lora_te_", {"ss_base_model_version": "sd_v2", "ss_v2": "True"})
SDXL = Family("SDXL", 2048, "lora_te1_", {"ss_base_model_version": "sdxl_base_v1-0", "ss_v2": "False"})
FAMILIES = (SD1, SD2, SDXL)


def detect(widths: Mapping[str, int]) -> Family | None:
    """The family of a LoRA, None if nothing tells.

    widths
        Input width of each layer, by canonical name.
    """
    for name, width in widths.items():
        if re.search(r"_attn2_to_[kv]$", name):
            return next((family for family in FAMILIES if family.context == width), None)
    unet = [name for name in widths if name.startswith("lora_unet_")]
    has_unet_blocks = any(re.match(r"lora_unet_(down_blocks|mid_block|up_blocks)_", name) for name in unet)
    has_second_encoder = any(name.startswith("lora_te2_") for name in widths)
    return SDXL if has_second_encoder and (has_unet_blocks or not unet) else None
